package pveapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// props is a Proxmox property string: "value,key=value,…", the first value
// belonging to a default key that is not written.
type props map[string]string

// parseProps reads a property string; what is given without a key goes to def.
func parseProps(text, def string) (props, error) {
	p := props{}
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			k, v = def, part
		}
		if k == "" {
			return nil, fmt.Errorf("value without key, but schema does not define a default key")
		}
		if _, dup := p[k]; dup {
			return nil, fmt.Errorf("duplicate key in comma-separated list property: %s", k)
		}
		p[k] = v
	}
	return p, nil
}

// print writes the property string as Proxmox does: the default key first and
// bare, the rest sorted. Size is written in the largest unit that fits.
func (p props) print(def string) string {
	var out []string
	if v, ok := p[def]; ok {
		out = append(out, v)
	}
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if k == def {
			continue
		}
		v := p[k]
		if n, err := parseSize(v); k == "size" && err == nil {
			v = formatSize(n)
		}
		out = append(out, k+"="+v)
	}
	return strings.Join(out, ",")
}

// parseSize reads a size: bytes, or a number with K, M, G or T.
func parseSize(s string) (int64, error) {
	number, unit := s, int64(1)
	if i := len(s) - 1; i >= 0 {
		if e := strings.IndexByte("KMGT", s[i]); e >= 0 {
			number, unit = s[:i], int64(1)<<(10*(e+1))
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > (1<<62)/unit {
			return 0, fmt.Errorf("size '%s' is out of range", s)
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*float64(unit) > 1<<62 {
		return 0, fmt.Errorf("unable to parse size '%s'", s)
	}
	return int64(f * float64(unit)), nil
}

// formatSize writes bytes in the largest unit that divides them.
func formatSize(n int64) string {
	unit := ""
	for _, u := range []string{"K", "M", "G", "T"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}
