package server

import (
	"context"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// applyDefinitions creates the resource definitions K3s brings along. Their
// schemas are open: the stand-in stores such objects, it does not act on them.
func applyDefinitions(ctx context.Context, config *rest.Config, helm bool) error {
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return err
	}
	definitions := []*apiextensions.CustomResourceDefinition{
		definition("k3s.cattle.io", "ETCDSnapshotFile", "etcdsnapshotfiles", apiextensions.ClusterScoped,
			column("SnapshotName", ".spec.snapshotName"), column("Node", ".spec.nodeName"),
			column("Location", ".spec.location"), column("Size", ".status.size"), column("CreationTime", ".status.creationTime")),
		definition("k3s.cattle.io", "Addon", "addons", apiextensions.NamespaceScoped,
			column("Source", ".spec.source"), column("Checksum", ".spec.checksum")),
	}
	if helm {
		definitions = append(definitions,
			definition("helm.cattle.io", "HelmChart", "helmcharts", apiextensions.NamespaceScoped),
			definition("helm.cattle.io", "HelmChartConfig", "helmchartconfigs", apiextensions.NamespaceScoped))
	}
	for _, d := range definitions {
		_, err := client.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, d, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func column(name, path string) apiextensions.CustomResourceColumnDefinition {
	return apiextensions.CustomResourceColumnDefinition{Name: name, Type: "string", JSONPath: path}
}

func definition(group, kind, plural string, scope apiextensions.ResourceScope, columns ...apiextensions.CustomResourceColumnDefinition) *apiextensions.CustomResourceDefinition {
	open := true
	object := apiextensions.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &open}
	return &apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: group, Scope: scope,
			Names: apiextensions.CustomResourceDefinitionNames{Kind: kind, ListKind: kind + "List", Plural: plural},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true, AdditionalPrinterColumns: columns,
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &open,
					Properties: map[string]apiextensions.JSONSchemaProps{"spec": object, "status": object},
				}},
			}},
		},
	}
}
