package workspace_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

const (
	monitoring = "templates/kubernetes/monitoring"
	runbooks   = "https://github.com/k3lab/k3lab/blob/main/docs/troubleshooting.md#"
)

// levels are those of the mission, each with alerts and a dashboard of its own.
var levels = []string{"infrastructure", "platform", "applications"}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

type groups struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

// history is what the metrics were when an alert must fire, and when it must not.
type history struct {
	Alert  string            `yaml:"alert"`
	At     string            `yaml:"at"`
	Labels map[string]string `yaml:"labels"` // of the firing alert, beside the rule's own
	Fires  map[string]string `yaml:"fires"`
	Quiet  map[string]string `yaml:"quiet"`
}

// TestAlerts has promtool check the rules, and evaluate each on its two histories.
func TestAlerts(t *testing.T) {
	promtool := findPromtool(t)
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			rules := rulesOf(t, level)
			run(t, promtool, "check", "rules", "--lint=all", "--lint-fatal", writeYAML(t, dir, "rules.yaml", rules))
			type object = map[string]any
			var tests []object
			for _, h := range histories(t, level) {
				severity := ruleNamed(t, rules, h.Alert).Labels["severity"]
				for name, samples := range map[string]map[string]string{"fires": h.Fires, "quiet": h.Quiet} {
					var series, expected []object
					for s, values := range samples {
						series = append(series, object{"series": s, "values": values})
					}
					if name == "fires" {
						labels := map[string]string{"alertname": h.Alert, "alertstate": "firing", "severity": severity, "level": level}
						for k, v := range h.Labels {
							labels[k] = v
						}
						var pairs []string
						for k, v := range labels {
							pairs = append(pairs, k+`="`+v+`"`)
						}
						expected = append(expected, object{"labels": "ALERTS{" + strings.Join(pairs, ",") + "}", "value": 1})
					}
					tests = append(tests, object{
						"name": h.Alert + " " + name, "interval": "1m", "input_series": series,
						"promql_expr_test": []object{{
							"expr":      `ALERTS{alertname="` + h.Alert + `",alertstate="firing"}`,
							"eval_time": h.At, "exp_samples": expected,
						}},
					})
				}
			}
			run(t, promtool, "test", "rules", writeYAML(t, dir, "tests.yaml", object{
				"rule_files": []string{"rules.yaml"}, "evaluation_interval": "1m", "tests": tests,
			}))
		})
	}
}

// TestEveryAlertHasHistories keeps an alert from being added without proof.
func TestEveryAlertHasHistories(t *testing.T) {
	for _, level := range levels {
		var alerts, proved []string
		for _, r := range allRules(rulesOf(t, level)) {
			alerts = append(alerts, r.Alert)
		}
		for _, h := range histories(t, level) {
			proved = append(proved, h.Alert)
			if h.At == "" || len(h.Fires) == 0 || len(h.Quiet) == 0 {
				t.Errorf("%s: a history needs at, fires and quiet", h.Alert)
			}
		}
		slices.Sort(alerts)
		slices.Sort(proved)
		if diff := cmp.Diff(alerts, proved); diff != "" {
			t.Errorf("%s: alerts without histories (-) or histories without an alert (+):\n%s", level, diff)
		}
	}
}

var labelUse = regexp.MustCompile(`\$labels\.(\w+)`)

// TestAlertsSayWhatTheyMean looks at what a person is told.
func TestAlertsSayWhatTheyMean(t *testing.T) {
	sections := runbookSections(t)
	used := map[string]bool{}
	for _, level := range levels {
		carried := map[string]map[string]string{}
		for _, h := range histories(t, level) {
			carried[h.Alert] = h.Labels
		}
		for _, r := range allRules(rulesOf(t, level)) {
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s: severity is %q, want warning or critical", r.Alert, s)
			}
			if r.Labels["level"] != level {
				t.Errorf("%s: level is %q, want %q", r.Alert, r.Labels["level"], level)
			}
			for _, key := range []string{"summary", "description"} {
				if r.Annotations[key] == "" {
					t.Errorf("%s: no %s", r.Alert, key)
				}
			}
			for _, use := range labelUse.FindAllStringSubmatch(r.Annotations["summary"]+r.Annotations["description"], -1) {
				if carried[r.Alert][use[1]] == "" {
					t.Errorf("%s: names the label %s, which the firing alert does not carry", r.Alert, use[1])
				}
			}
			anchor, ok := strings.CutPrefix(r.Annotations["runbook_url"], runbooks)
			if _, there := sections[anchor]; !ok || !there {
				t.Errorf("%s: docs/troubleshooting.md has no section for %q", r.Alert, r.Annotations["runbook_url"])
			}
			used[anchor] = true
			if !strings.Contains(sections[anchor], "`"+r.Alert+"`") {
				t.Errorf("%s: its runbook #%s does not name it", r.Alert, anchor)
			}
		}
	}
	for anchor, text := range sections {
		if !used[anchor] {
			t.Errorf("runbook #%s belongs to no alert", anchor)
		}
		for _, part := range []string{"**Means:**", "**Look at:**", "```sh\n", "**Do:**"} {
			if !strings.Contains(text, part) {
				t.Errorf("runbook #%s has no %q", anchor, part)
			}
		}
	}
}

// runbookSections maps the anchors of the runbooks to their texts.
func runbookSections(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	_, text, found := strings.Cut(read(t, "../../docs/troubleshooting.md"), "\n# Alerts\n")
	if !found {
		t.Fatal("docs/troubleshooting.md has no part Alerts")
	}
	for _, section := range strings.Split(text, "\n### ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		anchor := strings.ReplaceAll(strings.ToLower(title), " ", "-")
		if _, twice := out[anchor]; twice {
			t.Errorf("docs/troubleshooting.md has two sections #%s", anchor)
		}
		out[anchor] = body
	}
	return out
}

// TestDashboards keeps panels readable and what they ask for valid.
func TestDashboards(t *testing.T) {
	type panel struct {
		ID      int               `json:"id"`
		Title   string            `json:"title"`
		Source  map[string]string `json:"datasource"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	}
	var asRules []rule
	for _, level := range levels {
		var dashboard struct {
			UID    string  `json:"uid"`
			Panels []panel `json:"panels"`
		}
		if err := json.Unmarshal([]byte(read(t, filepath.Join(monitoring, "dashboards", level+".json"))), &dashboard); err != nil {
			t.Fatalf("%s: %v", level, err)
		}
		if dashboard.UID != "k3lab-"+level || len(dashboard.Panels) == 0 {
			t.Errorf("%s: uid %q with %d panels", level, dashboard.UID, len(dashboard.Panels))
		}
		ids := map[int]bool{}
		for _, p := range dashboard.Panels {
			if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %d %q: an id of its own, a title and a query are needed", level, p.ID, p.Title)
			}
			ids[p.ID] = true
			if p.Source["uid"] != "${datasource}" {
				t.Errorf("%s: panel %q names a data source of its own: %v", level, p.Title, p.Source)
			}
			for _, target := range p.Targets {
				asRules = append(asRules, rule{Alert: "Panel", Expr: target.Expr, Labels: map[string]string{"panel": level + ": " + p.Title}})
			}
		}
	}
	for _, r := range asRules {
		knownMetrics(t, r.Labels["panel"], r.Expr)
	}
	promtool := findPromtool(t)
	file := writeYAML(t, t.TempDir(), "panels.yaml", map[string]any{"groups": []map[string]any{{"name": "panels", "rules": asRules}}})
	run(t, promtool, "check", "rules", file)
}

// TestAlertsAskForKnownMetrics holds the rules to the list, so that a slip in a name shows.
func TestAlertsAskForKnownMetrics(t *testing.T) {
	for _, level := range levels {
		for _, r := range allRules(rulesOf(t, level)) {
			knownMetrics(t, r.Alert, r.Expr)
		}
	}
}

var (
	notMetrics = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on|unless on) *\([^)]*\)`)
	word       = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_]*(\s*\()?`)
)

// knownMetrics checks that a query asks for nothing but what testdata/metrics.yaml
// lists, and for what K3s serves at each of its endpoints from one job only.
func knownMetrics(t *testing.T, what, expr string) {
	t.Helper()
	var sources map[string][]string
	if err := yaml.Unmarshal([]byte(read(t, "testdata/metrics.yaml")), &sources); err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for source, metrics := range sources {
		for _, m := range metrics {
			known[m] = source
		}
	}
	text := notMetrics.ReplaceAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, ""), "")
	found := false
	for _, w := range word.FindAllString(text, -1) {
		if strings.HasSuffix(w, "(") || slices.Contains([]string{"and", "or", "unless", "offset", "h", "d", "m"}, w) {
			continue
		}
		found = true
		source, ok := known[w]
		if !ok {
			t.Errorf("%s: %s is not in testdata/metrics.yaml", what, w)
		}
		if source == "k3s" && strings.Count(expr, w) != strings.Count(expr, w+`{job="`) {
			t.Errorf("%s: %s is told by every endpoint of K3s: choose one by job", what, w)
		}
	}
	if !found {
		t.Errorf("%s: no metric found in %q", what, expr)
	}
}

// TestScrapeConfigOfK3s has promtool read what values.yaml adds to Prometheus.
func TestScrapeConfigOfK3s(t *testing.T) {
	var values struct {
		Prometheus struct {
			Spec struct {
				Scrape []map[string]any `yaml:"additionalScrapeConfigs"`
			} `yaml:"prometheusSpec"`
		} `yaml:"prometheus"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(monitoring, "values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	var jobs []any
	for _, s := range values.Prometheus.Spec.Scrape {
		jobs = append(jobs, s["job_name"])
	}
	want := []any{"kube-etcd", "kube-controller-manager", "kube-scheduler", "kube-proxy"}
	if diff := cmp.Diff(want, jobs); diff != "" {
		t.Errorf("jobs the alerts ask for (-want +got):\n%s", diff)
	}
	promtool := findPromtool(t)
	file := writeYAML(t, t.TempDir(), "prometheus.yaml", map[string]any{"scrape_configs": values.Prometheus.Spec.Scrape})
	run(t, promtool, "check", "config", "--syntax-only", file)
}

// findPromtool returns the promtool that make test has built.
func findPromtool(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("K3LAB_PROMTOOL"); p != "" {
		return p
	}
	p, err := filepath.Abs("../../bin/promtool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skip("no promtool (try: make promtool)")
	}
	return p
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

func rulesOf(t *testing.T, level string) groups {
	t.Helper()
	var object struct {
		Spec groups `yaml:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(monitoring, level+".yaml"))), &object); err != nil {
		t.Fatalf("%s: %v", level, err)
	}
	return object.Spec
}

func allRules(g groups) []rule {
	var out []rule
	for _, group := range g.Groups {
		out = append(out, group.Rules...)
	}
	return out
}

func ruleNamed(t *testing.T, g groups, name string) rule {
	t.Helper()
	for _, r := range allRules(g) {
		if r.Alert == name {
			return r
		}
	}
	t.Fatalf("there is no alert %s", name)
	return rule{}
}

func histories(t *testing.T, level string) []history {
	t.Helper()
	var out []history
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "testdata/alerts/"+level+".yaml")), &out, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", level, err)
	}
	return out
}

func writeYAML(t *testing.T, dir, name string, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
