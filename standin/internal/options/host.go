package options

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// nodeName is the configured name or the host name, in lower case as
// Kubernetes wants it.
func nodeName(configured string, withID bool) (string, error) {
	name := configured
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", err
		}
		name = host
	}
	name = strings.ToLower(name)
	if withID {
		password, err := NodePassword()
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256([]byte(password))
		name += "-" + hex.EncodeToString(sum[:4])
	}
	return name, nil
}

// NodePassword returns this machine's password, made on first use. The cluster
// remembers it, so that another machine of the same name cannot take its place.
func NodePassword() (string, error) {
	data, err := os.ReadFile(datadir.NodePasswordFile)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !os.IsNotExist(err) {
		return "", err
	}
	password := token.Random(16)
	return password, datadir.WriteFile(datadir.NodePasswordFile, []byte(password+"\n"), 0o600)
}

// parseMode reads a file mode as K3s takes it, in octal.
func parseMode(text string) (os.FileMode, error) {
	if text == "" {
		return 0o600, nil
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("write-kubeconfig-mode: %q is not an octal file mode", text)
	}
	return os.FileMode(mode).Perm(), nil
}

// nthAddress counts from the start of a network, as Kubernetes does for the
// API's (1) and the DNS service's (10) addresses.
func nthAddress(cidr string, n byte) (string, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return "", err
	}
	bytes := prefix.Masked().Addr().AsSlice()
	bytes[len(bytes)-1] += n
	addr, _ := netip.AddrFromSlice(bytes)
	return addr.String(), nil
}

// APIServiceIP is the address of the `kubernetes` service.
func (s *Server) APIServiceIP() (string, error) { return nthAddress(s.ServiceCIDR, 1) }

// defaultAddress is the address of the named interface, or of the one the
// default route leaves by, or else the first one that is not loopback.
func defaultAddress(iface string) (string, error) {
	if iface == "" {
		iface = defaultRouteInterface()
	}
	if iface != "" {
		if found, err := net.InterfaceByName(iface); err == nil {
			if addrs, err := found.Addrs(); err == nil {
				if ip := firstGlobal(addrs); ip != "" {
					return ip, nil
				}
			}
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	if ip := firstGlobal(addrs); ip != "" {
		return ip, nil
	}
	return "", fmt.Errorf("no network interface has an address to use as node IP (try: --node-ip)")
}

func firstGlobal(addrs []net.Addr) string {
	for _, addr := range addrs {
		if ipNet, ok := addr.(*net.IPNet); ok && ipNet.IP.To4() != nil && ipNet.IP.IsGlobalUnicast() {
			return ipNet.IP.String()
		}
	}
	return ""
}

// defaultRouteInterface reads the kernel's table: destination zero is the
// default route.
func defaultRouteInterface() string {
	file, err := os.Open("/proc/net/route")
	if err != nil {
		return ""
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		destination, err1 := hex.DecodeString(fields[1])
		mask, err2 := hex.DecodeString(fields[7])
		if err1 == nil && err2 == nil && len(destination) == 4 && len(mask) == 4 &&
			binary.LittleEndian.Uint32(destination) == 0 && binary.LittleEndian.Uint32(mask) == 0 {
			return fields[0]
		}
	}
	return ""
}
