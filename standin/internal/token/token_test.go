package token

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, c := range []struct {
		text string
		want Token
		err  string
	}{
		{"secret", Token{Password: "secret"}, ""},
		{"server:secret\n", Token{User: "server", Password: "secret"}, ""},
		{"K10" + hash + "::server:se:cret", Token{CAHash: hash, User: "server", Password: "se:cret"}, ""},
		{"K10" + hash + "::abcdef.0123456789abcdef", Token{CAHash: hash, Password: "abcdef.0123456789abcdef"}, ""},
		{"", Token{}, "token is empty"},
		{"K10abc::server:x", Token{}, "invalid token format"},
		{"K10" + hash, Token{}, "invalid token format"},
		{"server:", Token{}, "invalid token format"},
	} {
		got, err := Parse(c.text)
		if message(err) != c.err {
			t.Errorf("%q: got error %q, want %q", c.text, message(err), c.err)
		}
		if err == nil && got != c.want {
			t.Errorf("%q: got %+v, want %+v", c.text, got, c.want)
		}
	}
}

func TestFormatAndCheck(t *testing.T) {
	bundle := []byte("a CA bundle\n")
	parsed, err := Parse(Format(bundle, UserServer, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.CheckCA(bundle); err != nil {
		t.Errorf("its own CA: %v", err)
	}
	if err := parsed.CheckCA([]byte("another")); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("another CA: got %v", err)
	}
	if err := (Token{Password: "secret"}).CheckCA(bundle); err != nil {
		t.Errorf("a short token trusts any CA: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct{ text, user, password string }{
		{"secret", "node", "secret"},
		{"server:secret", "server", "secret"},
		{"abcdef.0123456789abcdef", "abcdef", "0123456789abcdef"},
	} {
		parsed, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if user, password := parsed.Credentials(UserAgent); user != c.user || password != c.password {
			t.Errorf("%q: got %s %s, want %s %s", c.text, user, password, c.user, c.password)
		}
	}
	if made, err := Parse(RandomBootstrap()); err != nil || !made.IsBootstrap() {
		t.Errorf("a made token is %+v, %v", made, err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
