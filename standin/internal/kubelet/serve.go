package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"
)

// The local ports of a node beside the kubelet's own.
const (
	healthPort           = 10248
	kubeProxyMetricsPort = 10249
	kubeProxyHealthPort  = 10256
	cloudControllerPort  = 10258
)

const headerTimeout = 10 * time.Second

// serve opens the ports of kubelet and kube-proxy. Ports that are taken are an
// error, as they are for the real ones.
func (k *Kubelet) serve(ctx context.Context) error {
	secure, err := listen(ctx, "", Port)
	if err != nil {
		return err
	}
	ServeHTTP(ctx, tls.NewListener(secure, k.serving), kubeletHandler())
	plain := []string{local(healthPort)}
	if k.config.KubeProxy {
		plain = append(plain, k.metrics, local(kubeProxyHealthPort))
	}
	for _, address := range plain {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		ServeHTTP(ctx, listener, healthHandler())
	}
	return nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// ServeCloudController answers the cloud controller's health port, which a
// server has and an agent has not.
func ServeCloudController(ctx context.Context, config *tls.Config) error {
	listener, err := listen(ctx, "127.0.0.1", cloudControllerPort)
	if err != nil {
		return err
	}
	ServeHTTP(ctx, tls.NewListener(listener, config), healthHandler())
	return nil
}

// ServeHTTP serves a listener in the background until ctx is done.
func ServeHTTP(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		// Probes that break off a TLS handshake are no news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		defer stop()
		if err := server.Serve(listener); err != nil && ctx.Err() == nil {
			logrus.Errorf("Serving %s: %v", listener.Addr(), err)
		}
	}()
}

func healthHandler() http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/livez", ok)
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return mux
}

// kubeletHandler answers holders of a client certificate only. What would need
// a container says that there is none.
func kubeletHandler() http.Handler {
	health := healthHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/healthz", "/metrics", "/livez":
			health.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("the k3lab stand-in runs no containers: %s is not served", r.URL.Path), http.StatusNotImplemented)
		}
	})
}
