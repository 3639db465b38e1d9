package kubelet

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNodeArgsMaskSecrets(t *testing.T) {
	got := nodeArgs([]string{"server", "--token=abc", "--node-label=a=b", "--agent-token", "def", "--cluster-init=true", "-t"})
	want := []string{"server", "--token", omitted, "--node-label", "a=b", "--agent-token", omitted, "--cluster-init", "true", "-t"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestNodeEnvMasksSecrets(t *testing.T) {
	got := nodeEnv([]string{"K3S_TOKEN=abc", "K3S_URL=https://x", "HOME=/root"})
	want := map[string]string{"K3S_TOKEN": omitted, "K3S_URL": "https://x"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseTaint(t *testing.T) {
	for text, want := range map[string]corev1.Taint{
		"a=b:NoSchedule":        {Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule},
		"a:NoExecute":           {Key: "a", Effect: corev1.TaintEffectNoExecute},
		"x/y=:PreferNoSchedule": {Key: "x/y", Effect: corev1.TaintEffectPreferNoSchedule},
	} {
		if got, err := parseTaint(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"a", "a=b", "a:Never", ":NoSchedule"} {
		if _, err := parseTaint(text); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestPodStagesLoad(t *testing.T) {
	stages, err := podStages()
	if err != nil || len(stages) != 3 {
		t.Errorf("got %d stages, %v", len(stages), err)
	}
}
