package converger

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	protocolVRRP = 112 // CARP uses it, too
	advertKind   = 1
	// A CARP advert is always of this size and says so in words of four bytes; the
	// same place of a VRRP advert holds other things.
	carpSize  = 36
	carpWords = 7
)

// parseAdvert reads an IPv4 packet that announces a virtual address.
func parseAdvert(packet []byte) (advertiser, bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != protocolVRRP {
		return advertiser{}, false
	}
	header, total := int(packet[0]&0x0f)*4, int(binary.BigEndian.Uint16(packet[2:]))
	fragment := binary.BigEndian.Uint16(packet[6:]) & 0x1fff
	if header < 20 || total < header+8 || len(packet) < total || fragment != 0 {
		return advertiser{}, false
	}
	advert := packet[header:total]
	version, kind := advert[0]>>4, advert[0]&0x0f
	if kind != advertKind || version != 2 && version != 3 || advert[1] == 0 {
		return advertiser{}, false
	}
	a := advertiser{protocol: "VRRP", id: int(advert[1]), from: netip.AddrFrom4([4]byte(packet[12:16]))}
	if version == 2 && len(advert) == carpSize && advert[3] == carpWords {
		a.protocol = "CARP"
	}
	return a, true
}

// arpSize is that of an ARP packet for IPv4 over Ethernet.
const arpSize = 28

// arpKind is Ethernet, IPv4, and the sizes of their addresses.
var arpKind = [6]byte{0, 1, 8, 0, 6, 4}

// arpProbe asks who has the address without claiming one itself (RFC 5227), so
// that nobody's memory of the network changes.
func arpProbe(from net.HardwareAddr, target netip.Addr) []byte {
	packet := make([]byte, arpSize)
	copy(packet, arpKind[:])
	packet[7] = 1 // request
	copy(packet[8:14], from)
	four := target.As4()
	copy(packet[24:], four[:])
	return packet
}

// parseARP returns whose hardware address an ARP packet tells, if it tells one.
func parseARP(packet []byte) (address netip.Addr, station string, ok bool) {
	if len(packet) < arpSize || [6]byte(packet[:6]) != arpKind {
		return netip.Addr{}, "", false
	}
	address = netip.AddrFrom4([4]byte(packet[14:18]))
	return address, net.HardwareAddr(packet[8:14]).String(), !address.IsUnspecified()
}
