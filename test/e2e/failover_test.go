package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// askEvery and askPatience are those of the requests while servers fail.
	askEvery    = 100 * time.Millisecond
	askPatience = time.Second
	// longestGap is how long the API may be away when one server fails.
	longestGap = 5 * time.Second
)

// failure is a way in which the server that has the VIP fails, and its end.
type failure struct {
	name  string
	begin func(t *testing.T, l *lab, victim string)
	end   func(t *testing.T, l *lab, victim string)
}

func failures() []failure {
	on := func(command string) func(*testing.T, *lab, string) {
		return func(_ *testing.T, l *lab, victim string) { l.onMachine(victim, "sh", "-c", "'"+command+"'") }
	}
	const stays = "/run/systemd/system/k3s.service.d/90-stays-dead.conf"
	return []failure{
		{
			"power is cut",
			func(t *testing.T, l *lab, victim string) { newProxmox(t, l.sandbox()).power(victim, "stop", "stopped") },
			func(t *testing.T, l *lab, victim string) {
				newProxmox(t, l.sandbox()).power(victim, "start", "running")
			},
		},
		{
			"K3s is killed",
			on("mkdir -p $(dirname " + stays + "); printf \"[Service]\\nRestart=no\\n\" > " + stays + "; systemctl daemon-reload; systemctl kill -s KILL k3s"),
			on("rm " + stays + "; systemctl daemon-reload; systemctl start --no-block k3s"),
		},
		{"K3s is stopped", on("systemctl stop k3s"), on("systemctl start --no-block k3s")},
		{"K3s hangs", on("systemctl kill -s STOP k3s"), on("systemctl kill -s CONT k3s")},
		{
			// Nobody notices a lost carrier: as where the switch behind the cable dies.
			"the link is cut",
			on("printf \"%s\" \"" + cutLink + "\" > /run/cut.nft; systemd-run --quiet sh -c \"sleep 1; nft -f /run/cut.nft; sleep 12; " +
				"nft delete table inet cut; nft delete table arp cut\""),
			func(*testing.T, *lab, string) {}, // by itself
		},
	}
}

// cutLink lets neither IP nor ARP in or out.
const cutLink = "table inet cut { chain i { type filter hook input priority -400; policy drop; iif lo accept; }; " +
	"chain o { type filter hook output priority -400; policy drop; oif lo accept; }; }; " +
	"table arp cut { chain i { type filter hook input priority 0; policy drop; }; chain o { type filter hook output priority 0; policy drop; }; }"

// caller asks the API through the VIP, each time with a patience of its own, and
// remembers how that went.
type caller struct {
	name   string
	client *http.Client
	url    string

	mu       sync.Mutex
	answered []time.Time // when, in order
	lost     []error
}

// callers are one that connects anew for each request, as a script does, and one
// that keeps its connection, as controllers and kubelets do.
func callers(t *testing.T, l *lab) []*caller {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(l.dir, ".k3lab/kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	// An object read from the datastore with its quorum, not from a cache.
	url := config.Host + "/api/v1/namespaces/default"
	anew := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}
	return []*caller{{name: "connecting anew", client: anew, url: url}, {name: "keeping its connection", client: kept, url: url}}
}

func (c *caller) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	err := c.request(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.answered = append(c.answered, time.Now())
	} else {
		c.lost = append(c.lost, err)
	}
}

func (c *caller) request(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answers %s", resp.Status)
	}
	return nil
}

// run asks at each tick, whether or not the request before was answered.
func (c *caller) run(ctx context.Context) {
	var asked sync.WaitGroup
	defer asked.Wait()
	for tick := time.NewTicker(askEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			asked.Go(func() { c.ask(context.WithoutCancel(ctx)) })
		}
	}
}

// steady reports whether the API has answered without a loss for that long.
func (c *caller) steady(since time.Time, long time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int(long / askEvery)
	i := len(c.answered) - n
	return i >= 0 && c.answered[i].After(since) && time.Since(c.answered[i]) < long*3/2
}

// account returns how many requests were lost and the longest time between two
// answers since it was asked last.
func (c *caller) account() (lost int, gap time.Duration, kinds string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 1; i < len(c.answered); i++ {
		gap = max(gap, c.answered[i].Sub(c.answered[i-1]))
	}
	count := map[string]int{}
	for _, err := range c.lost {
		text := err.Error()
		count[text[strings.LastIndex(text, ": ")+1:]]++
	}
	lost = len(c.lost)
	c.answered, c.lost = c.answered[max(0, len(c.answered)-1):], nil
	return lost, gap, fmt.Sprint(count)
}

// failOver has the server that has the VIP fail, and come back, under a constant
// stream of requests, and the API be away for less than a time; meanwhile is called
// while the server is.
func failOver(t *testing.T, l *lab, f failure, longest time.Duration, meanwhile func(victim string)) {
	t.Helper()
	victim := holder(t, l, vipOf(t, l)) // the worst one to lose
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	all := callers(t, l)
	for _, c := range all {
		running.Go(func() { c.run(ctx) })
	}
	settle := func(what string, after time.Time) {
		eventually(t, 30*time.Second, what, func() bool {
			return !slices.ContainsFunc(all, func(c *caller) bool { return !c.steady(after, 2*time.Second) })
		})
	}
	judge := func(what string) {
		for _, c := range all {
			lost, gap, kinds := c.account()
			t.Logf("%s of %s, a client %s: %d requests lost, no answer for %.1fs %s", what, victim, c.name, lost, gap.Seconds(), kinds)
			if gap >= longest {
				t.Errorf("%s of %s: the API was away for %.1fs from a client %s, want less than %s", what, victim, gap.Seconds(), c.name, longest)
			}
		}
	}
	settle("the API answers before anything fails", time.Time{})
	judge("before the failure")
	f.begin(t, l, victim)
	eventually(t, 20*time.Second, "the VIP is on another server", func() bool { return otherHolds(t, l, victim) })
	settle("the API answers after "+f.name, time.Now())
	judge(f.name + ": failure")
	meanwhile(victim)
	f.end(t, l, victim)
	eventually(t, 3*time.Minute, "the cluster is whole again", func() bool { _, err := l.run("-C", l.dir, "status"); return err == nil })
	settle("the API answers after the return", time.Now())
	judge(f.name + ": return")
}

// otherHolds reports whether a server other than the victim has the VIP.
func otherHolds(t *testing.T, l *lab, victim string) bool {
	t.Helper()
	for _, s := range []string{"server-1", "server-2", "server-3"} {
		if s == victim {
			continue
		}
		out, err := l.run("-C", l.dir, "ssh", s, "--", "ip", "-o", "-4", "addr")
		if err == nil && strings.Contains(out, " "+vipOf(t, l).String()+"/") {
			return true
		}
	}
	return false
}

// oneServerDies is the sample of failures that every run of the tests sees.
func oneServerDies(t *testing.T, l *lab) {
	for _, f := range failures()[:2] {
		failOver(t, l, f, longestGap, func(victim string) {
			if f.name != "power is cut" {
				return
			}
			if out := l.exit(6, "status"); !strings.Contains(out, victim+": does not answer SSH") {
				t.Errorf("status does not name %s:\n%s", victim, out)
			}
		})
	}
}

// TestFailOver has servers fail in all ways, one after the other, in an order
// drawn from each seed.
func TestFailOver(t *testing.T) {
	if os.Getenv("SEEDS") == "" {
		t.Skip("SEEDS is not set (try: make soak)")
	}
	l := newLab(t, "k3lab-e2e-failover", "ha")
	l.exit(0, "up", "--yes")
	whole(t, l)
	for _, seed := range seeds(t) {
		random := rand.New(rand.NewPCG(seed, seed))
		all := failures()
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, f := range all {
			l.phase("seed "+strconv.FormatUint(seed, 10)+", "+f.name, func(t *testing.T) { failOver(t, l, f, longestGap, func(string) {}) })
		}
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan: %v", describe(changes))
	}
}
