package scripts

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// releases serves a folder over TLS as K3s's releases and channel server, until the
// script ends, and has k3lab use that. The folder may change meanwhile.
func releases(ts *testscript.TestScript, args []string) {
	server := httptest.NewTLSServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(server.Close)
	ca := ts.MkAbs(".releases.pem")
	ts.Check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644))
	for name, value := range map[string]string{
		"SSL_CERT_FILE": ca, "K3LAB_K3S_RELEASES": server.URL, "K3LAB_K3S_CHANNELS": server.URL + "/channels.json",
		"K3LAB_K3S_BINARY": "", "NO_PROXY": "127.0.0.1",
	} {
		ts.Setenv(name, value)
	}
}
