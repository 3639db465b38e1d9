package converger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// vrrpGroup is where VRRP and CARP are spoken (RFC 5798). A switch that watches
// who listens to what passes it on to those who have joined.
var vrrpGroup = [4]byte{224, 0, 0, 18}

// hear listens to the network itself. Packets are taken before any firewall sees
// them: that of this machine drops what it does not expect.
func hear(ctx context.Context, c Claims) (_ heard, err error) {
	device, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return heard{}, fmt.Errorf("listening for other users of %s: %w", c.Address, err)
	}
	e := &listener{device: device, heard: heard{stations: map[netip.Addr][]string{}}}
	for _, text := range append([]string{c.Address}, c.Own...) {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return heard{}, err
		}
		e.targets = append(e.targets, address)
	}
	if err = e.open(); err == nil {
		err = e.run(ctx)
	}
	if closed := e.close(); err == nil {
		err = closed
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("listening on %s for other users of %s: %w", c.Interface, c.Address, err)
	}
	return e.heard, err
}

// listener has the sockets of one listening.
type listener struct {
	device      *net.Interface
	targets     []netip.Addr // who is asked for
	heard       heard
	sockets     []int
	ip, arp     int
	nextRequest time.Time
}

func (e *listener) open() (err error) {
	if e.ip, err = e.packets(unix.ETH_P_IP); err != nil {
		return err
	}
	if e.arp, err = e.packets(unix.ETH_P_ARP); err != nil {
		return err
	}
	member, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	e.sockets = append(e.sockets, member)
	return unix.SetsockoptIPMreqn(member, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
		&unix.IPMreqn{Multiaddr: vrrpGroup, Ifindex: int32(e.device.Index)})
}

func (e *listener) packets(protocol uint16) (int, error) {
	// Protocol 0 until it is bound, or it would get the packets of all interfaces.
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	e.sockets = append(e.sockets, s)
	return s, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: e.device.Index})
}

func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

func (e *listener) close() error {
	var errs []error
	for _, s := range e.sockets {
		errs = append(errs, unix.Close(s))
	}
	return errors.Join(errs...)
}

// run asks each second who has the addresses, and takes what comes.
func (e *listener) run(ctx context.Context) error {
	end := time.Now().Add(listenFor)
	fds := []unix.PollFd{{Fd: int32(e.ip), Events: unix.POLLIN}, {Fd: int32(e.arp), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
	for now := time.Now(); now.Before(end); now = time.Now() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !now.Before(e.nextRequest) {
			e.nextRequest = now.Add(time.Second)
			if err := e.request(); err != nil {
				return err
			}
		}
		const short = 100 // milliseconds, so that an interruption is noticed
		if _, err := unix.Poll(fds, short); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err := e.take(e.ip, e.advert); err != nil {
			return err
		}
		if err := e.take(e.arp, e.station); err != nil {
			return err
		}
	}
	return nil
}

func (e *listener) request() error {
	all := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: e.device.Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for _, target := range e.targets {
		if err := unix.Sendto(e.arp, arpProbe(e.device.HardwareAddr, target), 0, &all); err != nil {
			return err
		}
	}
	return nil
}

// take reads all packets that have arrived.
func (e *listener) take(socket int, each func([]byte)) error {
	buffer := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		default:
			each(buffer[:n])
		}
	}
}

func (e *listener) advert(packet []byte) {
	if a, ok := parseAdvert(packet); ok && !slices.Contains(e.heard.advertisers, a) {
		e.heard.advertisers = append(e.heard.advertisers, a)
	}
}

func (e *listener) station(packet []byte) {
	address, station, ok := parseARP(packet)
	if ok && slices.Contains(e.targets, address) && !slices.Contains(e.heard.stations[address], station) {
		e.heard.stations[address] = append(e.heard.stations[address], station)
	}
}
