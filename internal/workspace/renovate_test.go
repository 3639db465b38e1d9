package workspace_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/workspace"
)

// renovate is the part of renovate.json that finds versions. Renovate matches
// with RE2, as Go does.
type renovate struct {
	CustomManagers []struct{ ManagerFilePatterns, MatchStrings []string }
	PackageRules   []struct {
		MatchDepNames []string
		Versioning    string
	}
}

// renovated is a new workspace's renovate.json, and its all.yaml.
func renovated(t *testing.T) (renovate, string, *config.Lab) {
	t.Helper()
	user(t)
	d := at(t, t.TempDir())
	if _, err := workspace.Init(d, workspace.Options{Example: "single", LabName: "home", PublicKeys: []string{publicKey}}); err != nil {
		t.Fatal(err)
	}
	var rules renovate
	text, err := os.ReadFile(d.Path("renovate.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.CustomManagers) != 2 || len(rules.PackageRules) != 1 {
		t.Fatalf("%d managers, %d rules, want 2 and 1", len(rules.CustomManagers), len(rules.PackageRules))
	}
	settings, err := os.ReadFile(d.Path("ansible/group_vars/all.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lab, problems := config.Load(d.Root())
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return rules, string(settings), lab
}

func TestRenovateFindsTheVersionOfK3s(t *testing.T) {
	rules, settings, lab := renovated(t)
	manager := rules.CustomManagers[0]
	pattern := strings.TrimSuffix(strings.TrimPrefix(manager.ManagerFilePatterns[0], "/"), "/")
	if !regexp.MustCompile(pattern).MatchString("ansible/group_vars/all.yaml") {
		t.Errorf("%s does not match the file of the settings", pattern)
	}
	var got []map[string]string
	re := regexp.MustCompile(manager.MatchStrings[0])
	for _, m := range re.FindAllStringSubmatch(settings, -1) {
		found := map[string]string{}
		for i, name := range re.SubexpNames()[1:] {
			found[name] = m[i+1]
		}
		got = append(got, found)
	}
	want := []map[string]string{{"datasource": "github-releases", "depName": "k3s-io/k3s", "currentValue": lab.K3s.Version}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{want[0]["depName"]}, rules.PackageRules[0].MatchDepNames); diff != "" {
		t.Errorf("the rule is for (-want +got):\n%s", diff)
	}
}

// TestRenovateFindsTheImageOfKubeVIP: also where it comes from a registry with a
// port, and is pinned by its digest.
func TestRenovateFindsTheImageOfKubeVIP(t *testing.T) {
	rules, _, _ := renovated(t)
	manager := rules.CustomManagers[1]
	pattern := strings.TrimSuffix(strings.TrimPrefix(manager.ManagerFilePatterns[0], "/"), "/")
	if !regexp.MustCompile(pattern).MatchString("terraform/vars/network.yaml") {
		t.Errorf("%s does not match the file of the settings", pattern)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for line, want := range map[string][]string{
		"vip_image: ghcr.io/kube-vip/kube-vip:v1.2.3":                              {"ghcr.io/kube-vip/kube-vip", "v1.2.3", ""},
		`vip_image: "registry.home:5000/kube-vip:v1.2.3@` + digest + `"`:           {"registry.home:5000/kube-vip", "v1.2.3", digest},
		"vip_image: registry.home:5000/kube-vip@" + digest:                         nil,
		"# vip_image: ghcr.io/kube-vip/kube-vip:v1.2.3 is what k3lab takes anyway": nil,
	} {
		re := regexp.MustCompile(manager.MatchStrings[0])
		m := re.FindStringSubmatch("vip: 192.0.2.10\n" + line + "\ncidr: 192.0.2.0/24\n")
		var got []string
		for _, name := range []string{"depName", "currentValue", "currentDigest"} {
			if m != nil {
				got = append(got, m[re.SubexpIndex(name)])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

func TestRenovateTakesReleasesOnly(t *testing.T) {
	rules, _, lab := renovated(t)
	re := regexp.MustCompile(strings.TrimPrefix(rules.PackageRules[0].Versioning, "regex:"))
	for tag, want := range map[string]bool{
		lab.K3s.Version: true, "v1.37.0+k3s2": true, "v1.37.0-rc1+k3s1": false, "v1.37.0": false, "v1.37.0+rke2r1": false,
	} {
		if got := re.MatchString(tag); got != want {
			t.Errorf("%s: taken %v, want %v", tag, got, want)
		}
	}
}
