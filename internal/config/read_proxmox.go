package config

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

func (c *checker) readProxmox(lab *Lab, root *node) {
	if root == nil {
		return
	}
	o := object{c, stem(proxmoxFile), root}
	p := &lab.Proxmox
	p.Pool = o.text("pool", "k3lab")
	p.Hypervisors = map[string]Hypervisor{}
	carried := map[string][]string{}
	for _, e := range o.entries("hypervisors") {
		h := c.hypervisor(e)
		p.Hypervisors[h.Name] = h
		carried[h.Endpoint] = append(carried[h.Endpoint], h.Name)
	}
	for _, e := range o.entries("endpoints") {
		endpoint := c.endpoint(e)
		endpoint.Hypervisors = carried[endpoint.Name]
		p.Endpoints = append(p.Endpoints, endpoint)
	}
	p.Image = c.image(o)
}

var (
	endpointName   = regexp.MustCompile(`^[A-Za-z0-9]([-_A-Za-z0-9]{0,61}[A-Za-z0-9])?$`)
	hypervisorName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?$`)
)

func (c *checker) endpoint(e element) Endpoint {
	if !endpointName.MatchString(e.name) {
		c.errorAt(e.key, "use letters, digits, - and _", "%q cannot be an endpoint's name", e.name)
	}
	o := c.objectOf(e)
	o.require("url")
	text, key, ok := o.scalar("url", kindText)
	if ok {
		if hint := endpointURL(text); hint != "" {
			c.errorAt(key, hint, "%q is not the address of a Proxmox VE API", text)
		}
	}
	return Endpoint{Name: e.name, URL: text, CAFile: o.text("ca_file", "")}
}

// endpointURL returns what would be right, or "" when text is.
func endpointURL(text string) string {
	const example = "write https://192.168.10.2:8006"
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return example
	case u.Scheme != "https":
		return "write https://" + u.Host
	case strings.Trim(u.Path, "/") != "":
		return fmt.Sprintf("write https://%s; the path is added by k3lab", u.Host)
	default:
		return ""
	}
}

func (c *checker) hypervisor(e element) Hypervisor {
	switch {
	case e.name == HypervisorNone:
		c.errorAt(e.key, "use the name Proxmox VE shows for the node", "none is kept for machines without a hypervisor")
	case !hypervisorName.MatchString(e.name):
		c.errorAt(e.key, "use the name Proxmox VE shows for the node", "%q cannot be a hypervisor's name", e.name)
	}
	o := c.objectOf(e)
	o.require("endpoint", "storage")
	return Hypervisor{
		Name:         e.name,
		Endpoint:     o.text("endpoint", ""),
		Storage:      o.text("storage", ""),
		ImageStorage: o.text("image_storage", "local"),
		TemplateVMID: o.int("template_vmid", 0, leastVMID, mostVMID),
		UserTemplate: o.bool("user_template", false),
		MemoryMiB:    o.size("memory_mib", 0, leastNodeMemoryMiB, mostMemoryMiB),
	}
}

var hexText = regexp.MustCompile(`^[0-9a-fA-F]+$`)

func (c *checker) image(file object) Image {
	if _, _, ok := file.get("image"); !ok {
		return Image{}
	}
	o := file.object("image")
	o.require("url", "checksum", "file_name")
	i := Image{
		URL:               o.text("url", ""),
		Checksum:          strings.ToLower(o.text("checksum", "")),
		ChecksumAlgorithm: o.choice("checksum_algorithm", "sha512", "sha256", "sha512"),
		FileName:          o.text("file_name", ""),
	}
	c.imageURL(i, o.key+".url")
	c.checksum(i.Checksum, i.ChecksumAlgorithm, o.key+".checksum")
	if i.FileName != "" {
		c.imageFile(i.FileName, o.key+".file_name")
	}
	return i
}

func (c *checker) imageURL(i Image, key string) {
	if i.URL == "" {
		return
	}
	u, err := url.Parse(i.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		c.errorAt(key, "write https://…", "%q is not the address of an image", i.URL)
	case strings.Contains(strings.ToLower(u.Path), "latest"):
		c.errorAt(key, "choose a dated one, such as …/20260110-2353/…, with its checksum",
			"what latest points to changes, and its checksum with it")
	}
}

func (c *checker) checksum(sum, algorithm, key string) {
	if sum == "" {
		return
	}
	digits := map[string]int{"sha256": 64, "sha512": 128}
	if hexText.MatchString(sum) && len(sum) == digits[algorithm] {
		return
	}
	hint := fmt.Sprintf("copy the %d hex digits of the publisher's list", digits[algorithm])
	for _, other := range []string{"sha256", "sha512"} {
		if hexText.MatchString(sum) && len(sum) == digits[other] {
			hint = "write checksum_algorithm: " + other
		}
	}
	c.errorAt(key, hint, "it is not a %s checksum", algorithm)
}

// imageFile checks the name under which Proxmox VE keeps the image: it tells the
// format by the extension.
func (c *checker) imageFile(name, key string) {
	extension := path.Ext(name)
	switch {
	case strings.ContainsAny(name, "/ ") || strings.HasPrefix(name, "."):
		c.errorAt(key, "write the bare file name", "%q is not a file name", name)
	case extension != ".qcow2" && extension != ".raw" && extension != ".vmdk":
		c.errorAt(key, "write "+strings.TrimSuffix(name, extension)+".qcow2 when the image is of that format, as most .img are",
			"Proxmox VE imports only .qcow2, .raw and .vmdk")
	}
}
