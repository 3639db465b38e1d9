package converger

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseAdvert(t *testing.T) {
	const (
		to   = "e0000012"
		from = "c0000201"
		// Version, length, TTL 255, protocol 112.
		header = "45c000%LEN% 00000000 ff700000 " + from + to
	)
	ip := func(length, rest string) string { return strings.Replace(header, "%LEN%", length, 1) + rest }
	vrrp2 := ip("28", "2133640100011234 c000020a 0000000000000000")
	carp := ip("38", "21330007000112340000000000000001"+strings.Repeat("ab", 20))
	tests := map[string]struct {
		packet string
		want   advertiser
		ok     bool
	}{
		"VRRP 2":                              {vrrp2, advertiser{"VRRP", 51, netip.MustParseAddr("192.0.2.1")}, true},
		"VRRP 3":                              {ip("20", "31ff640100641234c000020a"), advertiser{"VRRP", 255, netip.MustParseAddr("192.0.2.1")}, true},
		"CARP":                                {carp, advertiser{"CARP", 51, netip.MustParseAddr("192.0.2.1")}, true},
		"VRRP 2 with seven addresses":         {ip("40", "2133640700011234"+strings.Repeat("c000020a", 7)+"0000000000000000"), advertiser{"VRRP", 51, netip.MustParseAddr("192.0.2.1")}, true},
		"a packet with padding after its end": {vrrp2 + "000000000000", advertiser{"VRRP", 51, netip.MustParseAddr("192.0.2.1")}, true},
		"a header with options": {"46c00024 00000000 ff700000 " + from + to + "94040000" + "31070a0100641234c000020a",
			advertiser{"VRRP", 7, netip.MustParseAddr("192.0.2.1")}, true},
		"another protocol":  {strings.Replace(vrrp2, "ff70", "ff11", 1), advertiser{}, false},
		"another version":   {ip("20", "41ff640100641234c000020a"), advertiser{}, false},
		"not an advert":     {ip("20", "32ff640100641234c000020a"), advertiser{}, false},
		"no ID":             {ip("20", "3100640100641234c000020a"), advertiser{}, false},
		"a later fragment":  {strings.Replace(vrrp2, "00000000 ff", "00000001 ff", 1), advertiser{}, false},
		"IPv6":              {"6" + vrrp2[1:], advertiser{}, false},
		"cut off":           {vrrp2[:60], advertiser{}, false},
		"a header too long": {"4f" + vrrp2[2:], advertiser{}, false},
		"nothing":           {"", advertiser{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := parseAdvert(bytesOf(t, tt.packet))
			if got != tt.want || ok != tt.ok {
				t.Errorf("%+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestARP(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
	const request = "0001080006040001 525400010203 00000000 000000000000 c000020a"
	if d := cmp.Diff(bytesOf(t, request), arpProbe(mac, netip.MustParseAddr("192.0.2.10"))); d != "" {
		t.Errorf("probe (-want +got):\n%s", d)
	}
	tests := map[string]struct {
		packet, address, station string
		ok                       bool
	}{
		"a reply":          {"0001080006040002 525400010203 c000020a 525400040506 00000000", "192.0.2.10", "52:54:00:01:02:03", true},
		"an announcement":  {"0001080006040001 525400010203 c000020a 000000000000 c000020a", "192.0.2.10", "52:54:00:01:02:03", true},
		"with padding":     {"0001080006040002 525400010203 c000020a 525400040506 00000000 0000", "192.0.2.10", "52:54:00:01:02:03", true},
		"a probe like our": {request, "0.0.0.0", "52:54:00:01:02:03", false},
		"not Ethernet":     {"0006080006040002 525400010203 c000020a 525400040506 00000000", "", "", false},
		"cut off":          {"0001080006040002 525400010203 c000020a", "", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			address, station, ok := parseARP(bytesOf(t, tt.packet))
			if text := address.String(); ok != tt.ok || station != tt.station || tt.address != "" && text != tt.address {
				t.Errorf("%s %s %v, want %s %s %v", text, station, ok, tt.address, tt.station, tt.ok)
			}
		})
	}
}

func someClaims() Claims {
	return Claims{
		Interface: "eth0", Address: "192.0.2.10", VRRPID: 51, Own: []string{"192.0.2.11", "192.0.2.12"},
		AddressSetting: "vip in a.yaml", IDSetting: "vrrp_id in a.yaml",
	}
}

// TestAnAddressAloneIsClaimed: who takes turns by other means than VRRP is no
// hindrance for whoever speaks it.
func TestAnAddressAloneIsClaimed(t *testing.T) {
	c := someClaims()
	c.VRRPID, c.IDSetting = 0, ""
	if err := c.validate(); err != nil {
		t.Error(err)
	}
	at := netip.MustParseAddr
	router := []advertiser{{"VRRP", 51, at("192.0.2.1")}, {"CARP", 0, at("192.0.2.1")}}
	if err := c.judge(heard{advertisers: router}); err != nil {
		t.Errorf("with a router that speaks VRRP: %v", err)
	}
	err := c.judge(heard{advertisers: router, stations: map[netip.Addr][]string{at("192.0.2.10"): {"02:00:00:00:00:99"}}})
	want := "another machine has the address 192.0.2.10 already, with the hardware address 02:00:00:00:00:99; " +
		"take it from that machine, or set vip in a.yaml to a free one"
	if err == nil || err.Error() != want {
		t.Errorf("with a machine that has it: %v, want %s", err, want)
	}
}

func TestClaimsAreJudged(t *testing.T) {
	at := netip.MustParseAddr
	tests := map[string]struct {
		heard heard
		want  string
	}{
		"silence": {},
		"our own servers": {heard: heard{
			advertisers: []advertiser{{"VRRP", 51, at("192.0.2.12")}},
			stations:    map[netip.Addr][]string{at("192.0.2.10"): {"02:00:00:00:00:12"}, at("192.0.2.12"): {"02:00:00:00:00:12"}},
		}},
		"others with another ID": {heard: heard{advertisers: []advertiser{{"VRRP", 50, at("192.0.2.1")}}}},
		"a router, its reserve, and a neighbour with the next ID": {
			heard{advertisers: []advertiser{{"VRRP", 51, at("192.0.2.1")}, {"CARP", 52, at("192.0.2.1")}, {"CARP", 51, at("192.0.2.2")}}},
			"192.0.2.1 uses VRRP ID 51 in this network already; set vrrp_id in a.yaml to another, such as 53\n" +
				"192.0.2.2 uses CARP ID 51 in this network already; set vrrp_id in a.yaml to another, such as 53",
		},
		"another machine has the address, ours too": {
			heard{stations: map[netip.Addr][]string{
				at("192.0.2.10"): {"02:00:00:00:00:99", "02:00:00:00:00:11"}, at("192.0.2.11"): {"02:00:00:00:00:11"},
			}},
			"another machine has the address 192.0.2.10 already, with the hardware address 02:00:00:00:00:99; " +
				"take it from that machine, or set vip in a.yaml to a free one",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := someClaims().judge(tt.heard); err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if got := free(map[int]bool{255: true, 1: true}, 254); got != 2 {
		t.Errorf("after 255 comes %d, want 2", got)
	}
}

// claiming is a request whose file claims something, with a file after it.
func claiming() Request {
	claims := someClaims()
	r := file("/etc/keepalived.conf", "new\n")
	r.File.Claims = &claims
	return Request{State: State{Machine: "server-1", Resources: []Resource{file("/etc/before", "x"), r, file("/etc/after", "x")}}}
}

func TestAFileIsNotWrittenThatClaimsWhatSomebodyElseHas(t *testing.T) {
	f := newFakeMachine(t)
	c := f.converger()
	c.ear = func(context.Context, Claims) (heard, error) {
		return heard{advertisers: []advertiser{{"VRRP", 51, netip.MustParseAddr("192.0.2.1")}}}, nil
	}
	var errs []string
	err := c.Apply(context.Background(), claiming(), func(ch Change) {
		if ch.Error != "" {
			errs = append(errs, ch.Resource+": "+ch.Error)
		}
	})
	if !errors.Is(err, ErrFailed) {
		t.Errorf("error %v", err)
	}
	want := []string{"file /etc/keepalived.conf: 192.0.2.1 uses VRRP ID 51 in this network already; set vrrp_id in a.yaml to another, such as 52"}
	if d := cmp.Diff(want, errs); d != "" {
		t.Errorf("errors (-want +got):\n%s", d)
	}
	if text := f.read("/etc/keepalived.conf"); !strings.HasPrefix(text, "error: ") {
		t.Errorf("the file was written: %q", text)
	}
	if text := f.read("/etc/after"); text != "x" {
		t.Errorf("what does not need it was not made: %q", text)
	}
}

func TestNobodyListensForWhatDoesNotChange(t *testing.T) {
	f := newFakeMachine(t)
	c := f.converger()
	heardFor := 0
	c.ear = func(context.Context, Claims) (heard, error) { heardFor++; return heard{}, nil }
	q := claiming()
	apply := func() {
		t.Helper()
		if err := c.Apply(context.Background(), q, func(Change) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Plan(context.Background(), q, func(Change) {}); err != nil || heardFor != 0 {
		t.Fatalf("planning listened %d times: %v", heardFor, err)
	}
	apply()
	apply()
	if heardFor != 1 {
		t.Errorf("it was listened %d times, want once", heardFor)
	}
}

func TestListeningGoesOnBesideWhatComesBefore(t *testing.T) {
	f := newFakeMachine(t)
	c := f.converger()
	before := make(chan struct{})
	c.ear = func(ctx context.Context, _ Claims) (heard, error) {
		select {
		case <-before: // which is made only if listening does not hold it up
			return heard{}, nil
		case <-time.After(10 * time.Second):
			return heard{}, errors.New("nothing was made meanwhile")
		}
	}
	err := c.Apply(context.Background(), claiming(), func(ch Change) {
		if ch.Resource == "file /etc/before" {
			close(before)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClaimsAreValidated(t *testing.T) {
	q := claiming()
	q.State.Resources[1].File.Claims.Address = "fd00::1"
	q.State.Resources[1].File.Claims.VRRPID = 256
	err := newFakeMachine(t).converger().Plan(context.Background(), q, func(Change) {})
	want := "file /etc/keepalived.conf: \"fd00::1\" is no IPv4 address\n256 is no VRRP ID"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
