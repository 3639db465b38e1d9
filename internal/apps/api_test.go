package apps

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3lab/k3lab/internal/kube"
)

// apiScript makes the namespaces it is started in into a computer with nothing but
// a K3s server, which ends with standard input.
const apiScript = `
mount --make-rprivate /
mount -t tmpfs changes "$1"
mkdir "$1/etc" "$1/work"
mount -t overlay etc -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
for dir in /run /var/lib; do mount -t tmpfs own $dir; done
rm -rf /etc/rancher; mkdir -p /etc/rancher/k3s /var/lib/rancher
hostname server-1
echo "127.0.0.1 localhost server-1" >/etc/hosts
ip link set lo up
ip link add eth0 type bridge
ip address add 10.88.0.1/24 dev eth0
ip link set eth0 up
ip route add default via 10.88.0.254
"$2" server --disable traefik,servicelb,coredns,metrics-server,local-storage >"$3" 2>&1 &
exec cat >/dev/null
`

// api is the real API server all tests of the package share, or why there is none.
var api = struct {
	client *kube.Client
	skip   string
}{skip: "needs root, for namespaces"}

// TestMain starts the API server; it ends with the test process.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		stop, err := startAPI()
		defer stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code := m.Run()
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func startAPI() (stop func(), err error) {
	stop = func() {}
	binary := os.Getenv("K3LAB_STANDIN")
	if binary == "" {
		binary = filepath.Join("..", "..", "bin", "standin", "k3s")
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return stop, err
	}
	if _, err := os.Stat(binary); err != nil {
		api.skip = "no k3s binary (try: make standin): " + err.Error()
		return stop, nil //nolint:nilerr // then the tests are skipped
	}
	dir, err := os.MkdirTemp("", "k3lab-apps-")
	if err != nil {
		return stop, err
	}
	log := filepath.Join(dir, "k3s.log")
	if err := os.Mkdir(filepath.Join(dir, "own"), 0o700); err != nil {
		return stop, err
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--mount-proc",
		"sh", "-ec", apiScript, "sh", filepath.Join(dir, "own"), binary, log)
	input, err := cmd.StdinPipe()
	if err != nil {
		return stop, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return stop, err
	}
	stop = func() {
		input.Close()
		_ = cmd.Wait() // killed with its namespace
		os.RemoveAll(dir)
	}
	began := time.Now()
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		if err = tryAPI(cmd.Process.Pid); err == nil {
			api.skip = ""
			return stop, nil //nolint:nilerr // then the tests are skipped
		}
		if time.Since(began) > 2*time.Minute {
			text, _ := os.ReadFile(log)
			return stop, fmt.Errorf("the API did not come up: %w\n%s", err, text[max(0, len(text)-2000):])
		}
	}
}

// tryAPI connects to the API of the process's child once.
func tryAPI(unshare int) error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", unshare, unshare))
	if err != nil || len(strings.Fields(string(children))) == 0 {
		return fmt.Errorf("no child yet: %w", err)
	}
	child := strings.Fields(string(children))[0]
	kubeconfig, err := os.ReadFile("/proc/" + child + "/root/etc/rancher/k3s/k3s.yaml")
	if err != nil {
		return err
	}
	if api.client == nil {
		forward, err := forwarded("/proc/" + child + "/ns/net")
		if err != nil {
			return err
		}
		if api.client, err = kube.New(kubeconfig, "https://"+forward); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err = api.client.Core.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		api.client = nil // its certificates may be those of before
	}
	return err
}

// forwarded is an address here that leads to the API in a network namespace.
func forwarded(namespace string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer here.Close()
				there, err := dialIn(namespace, "127.0.0.1:6443")
				if err != nil {
					return
				}
				defer there.Close()
				go func() { _, _ = io.Copy(there, here); there.Close() }()
				_, _ = io.Copy(here, there)
			}()
		}
	}()
	return l.Addr().String(), nil
}

// dialIn connects as a program in that network namespace would.
func dialIn(namespace, address string) (net.Conn, error) {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	there, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return (&net.Dialer{FallbackDelay: -1}).Dial("tcp", address)
}
