package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3lab/k3lab/internal/kube"
)

// Credentials are a client certificate and its key.
type Credentials struct {
	Key, Certificate []byte // PEM; the key is secret and never leaves this computer
	Until            time.Time
}

// Issue makes a key, has the cluster sign a client certificate for it that names
// the person, and returns both. The request is deleted again.
func (c *Client) Issue(ctx context.Context, name string, lifetime time.Duration) (_ Credentials, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Credentials{}, fmt.Errorf("key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Credentials{}, fmt.Errorf("key: %w", err)
	}
	subject := pkix.Name{CommonName: name, Organization: []string{PeopleGroup}}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return Credentials{}, fmt.Errorf("certificate request: %w", err)
	}
	seconds := int32(lifetime / time.Second)
	requests := c.Core.CertificatesV1().CertificateSigningRequests()
	made, err := requests.Create(ctx, &certv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "k3lab-person-", Labels: map[string]string{personLabel: ""}},
		Spec: certv1.CertificateSigningRequestSpec{
			Request:           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName:        certv1.KubeAPIServerClientSignerName,
			ExpirationSeconds: &seconds,
			Usages:            []certv1.KeyUsage{certv1.UsageClientAuth, certv1.UsageDigitalSignature},
		},
	}, metav1.CreateOptions{FieldManager: FieldManager})
	if err != nil {
		return Credentials{}, fmt.Errorf("certificate request: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kube.AnswerPatience)
		defer cancel()
		err = errors.Join(err, requests.Delete(ctx, made.Name, metav1.DeleteOptions{}))
	}()
	made.Status.Conditions = append(made.Status.Conditions, certv1.CertificateSigningRequestCondition{
		Type: certv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "k3lab", Message: "asked for by an administrator",
	})
	if _, err := requests.UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{FieldManager: FieldManager}); err != nil {
		return Credentials{}, fmt.Errorf("certificate request: approve: %w", err)
	}
	signed, err := c.signed(ctx, made.Name)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		Key:         pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		Certificate: signed.text, Until: signed.cert.NotAfter,
	}, nil
}

type signed struct {
	text []byte
	cert *x509.Certificate
}

// signed waits until the cluster has signed the request.
func (c *Client) signed(ctx context.Context, request string) (signed, error) {
	requests := c.Core.CertificatesV1().CertificateSigningRequests()
	watch, err := requests.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", request).String()})
	if err != nil {
		return signed{}, fmt.Errorf("certificate request: %w", err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		r, ok := event.Object.(*certv1.CertificateSigningRequest)
		if !ok {
			continue
		}
		for _, condition := range r.Status.Conditions {
			if condition.Type == certv1.CertificateFailed || condition.Type == certv1.CertificateDenied {
				return signed{}, fmt.Errorf("certificate request: %s: %s", condition.Type, condition.Message)
			}
		}
		if len(r.Status.Certificate) == 0 {
			continue
		}
		block, _ := pem.Decode(r.Status.Certificate)
		if block == nil {
			return signed{}, errors.New("certificate request: what was signed is not a certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return signed{}, fmt.Errorf("certificate request: what was signed: %w", err)
		}
		return signed{r.Status.Certificate, cert}, nil
	}
	if ctx.Err() != nil {
		return signed{}, fmt.Errorf("certificate request: approved, but not signed: %w", ctx.Err())
	}
	return signed{}, errors.New("certificate request: approved, but the api ended before it was signed")
}

// PersonKubeconfig is a kubeconfig for a person, made from an administrator's for
// the same cluster. Its context is called NAME@CLUSTER.
func PersonKubeconfig(admin []byte, name string, c Credentials) ([]byte, error) {
	in, err := clientcmd.Load(admin)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	context := in.Contexts[in.CurrentContext]
	if context == nil || in.Clusters[context.Cluster] == nil {
		return nil, fmt.Errorf("kubeconfig: context %q is not whole", in.CurrentContext)
	}
	who := name + "@" + context.Cluster
	out := clientcmdapi.NewConfig()
	out.Clusters[context.Cluster] = in.Clusters[context.Cluster]
	out.AuthInfos[who] = &clientcmdapi.AuthInfo{ClientKeyData: c.Key, ClientCertificateData: c.Certificate}
	out.Contexts[who] = &clientcmdapi.Context{Cluster: context.Cluster, AuthInfo: who}
	out.CurrentContext = who
	text, err := clientcmd.Write(*out)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return text, nil
}
