package converger

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// listenFor is how long the network is listened to. Who has a VRRP or CARP address
// says so every second, unless somebody has set it otherwise.
const listenFor = 3 * time.Second

// advertiser is who announces a virtual address in the network.
type advertiser struct {
	protocol string // VRRP, CARP
	id       int
	from     netip.Addr
}

// heard is what was noticed in a network.
type heard struct {
	advertisers []advertiser
	stations    map[netip.Addr][]string // the hardware addresses that answer for an address
}

// ear listens to a network. It is the network itself, or in tests a story of it.
type ear func(ctx context.Context, c Claims) (heard, error)

// listen begins to listen for whom the files that are going to be written get in
// the way of, while everything before them is done.
func (w *writer) listen(ctx context.Context, q Request, ear ear) {
	for _, r := range q.State.Resources {
		if r.File == nil || r.File.Claims == nil || !w.selected[r.ID()] {
			continue
		}
		claims, verdict := *r.File.Claims, make(chan error, 1)
		w.verdicts[r.File.Path] = verdict
		go func() {
			h, err := ear(ctx, claims)
			if err == nil {
				err = claims.judge(h)
			}
			verdict <- err
		}()
	}
}

// unclaimed waits until it is known that nobody else has what the file claims.
func (w *writer) unclaimed(ctx context.Context, f *File) error {
	verdict, ok := w.verdicts[f.Path]
	if !ok {
		return nil
	}
	select {
	case err := <-verdict:
		verdict <- err // who asks again gets the same
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Claims) validate() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, text := range append([]string{c.Address}, c.Own...) {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			errs = append(errs, fmt.Errorf("%q is no IPv4 address", text))
		}
	}
	if c.VRRPID < 0 || c.VRRPID > 255 { // 0: none
		errs = append(errs, fmt.Errorf("%d is no VRRP ID", c.VRRPID))
	}
	return errors.Join(errs...)
}

// judge says who else has what is claimed.
func (c Claims) judge(h heard) error {
	var errs []error
	used := map[int]bool{}
	for _, a := range h.advertisers {
		used[a.id] = true
	}
	told := map[advertiser]bool{}
	for _, a := range h.advertisers {
		if c.VRRPID == 0 || a.id != c.VRRPID || slices.Contains(c.Own, a.from.String()) || told[a] {
			continue
		}
		told[a] = true
		errs = append(errs, fmt.Errorf("%s uses %s ID %d in this network already; set %s to another, such as %d",
			a.from, a.protocol, a.id, c.IDSetting, free(used, c.VRRPID)))
	}
	var ours, theirs []string
	for address, stations := range h.stations {
		if slices.Contains(c.Own, address.String()) {
			ours = append(ours, stations...)
		}
	}
	for address, stations := range h.stations {
		if address.String() != c.Address {
			continue
		}
		for _, s := range stations {
			if !slices.Contains(ours, s) {
				theirs = append(theirs, s)
			}
		}
	}
	if theirs != nil {
		slices.Sort(theirs)
		errs = append(errs, fmt.Errorf("another machine has the address %s already, with the hardware address %s; "+
			"take it from that machine, or set %s to a free one", c.Address, strings.Join(theirs, ", "), c.AddressSetting))
	}
	return errors.Join(errs...)
}

// free is an ID that nobody was heard to use.
func free(used map[int]bool, wanted int) int {
	for i := range 255 {
		if id := (wanted+i)%255 + 1; !used[id] {
			return id
		}
	}
	return wanted
}
