package bootstrap

import (
	"errors"
	"reflect"
	"testing"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

func TestSealAndOpen(t *testing.T) {
	bundle := Bundle{"tls/server-ca.crt": []byte("cert"), "cred/passwd": []byte("secret")}
	sealed, err := bundle.Seal("token")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(sealed, "token")
	if err != nil || !reflect.DeepEqual(opened, bundle) {
		t.Errorf("got %v, %v", opened, err)
	}
	if _, err := Open(sealed, "another"); !errors.Is(err, ErrWrongToken) {
		t.Errorf("another token: got %v", err)
	}
	if _, err := Open(sealed[:5], "token"); err == nil {
		t.Error("a cut bundle was opened")
	}
	if Key("token") == Key("another") {
		t.Error("two tokens share a key")
	}
}

func TestWriteRefusesOtherFiles(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	for _, name := range []string{"../../etc/passwd", "tls/extra.crt"} {
		if err := (Bundle{name: []byte("x")}).Write(dir); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}
