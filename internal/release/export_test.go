package release

import "net/http"

// Trusting is a downloader as it is by default, but for whom it trusts.
func Trusting(c *http.Client) Downloader {
	client := newClient()
	client.Transport = c.Transport
	return Downloader{Client: client}
}
