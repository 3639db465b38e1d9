package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/encryption"
	"github.com/k3lab/k3lab/standin/internal/flags"
	"github.com/k3lab/k3lab/standin/internal/pki"
)

// warnBefore is how long before its end a certificate is reported.
const warnBefore = 120 * 24 * time.Hour

var certificateDefs = []flags.Def{
	{Name: "data-dir", Aliases: []string{"d"}, Kind: flags.String},
	{Name: "service", Aliases: []string{"s"}, Kind: flags.List},
	{Name: "output", Aliases: []string{"o"}, Kind: flags.String, Default: "text"},
	{Name: "config", Aliases: []string{"c"}, Kind: flags.String},
	{Name: "debug", Kind: flags.Bool},
}

func certificate(args []string) error {
	name, args, err := subcommand("certificate", args, "check", "rotate", "rotate-ca")
	if err != nil {
		return err
	}
	values, _, err := flags.Parse(certificateDefs, args)
	if err != nil {
		return err
	}
	dir := datadir.New(values.String("data-dir"))
	services := values.List("service")
	if len(services) == 0 {
		services = slices.Sorted(maps.Keys(pki.LeafFiles()))
	}
	for _, service := range services {
		if _, ok := pki.LeafFiles()[service]; !ok {
			return fmt.Errorf("%s is not a recognized service", service)
		}
	}
	switch name {
	case "rotate":
		return rotate(dir, services)
	case "rotate-ca":
		return errors.New("the k3lab stand-in does not rotate certificate authorities")
	default:
		return check(dir, services, values.String("output"))
	}
}

// rotate removes certificates; the next start makes them anew.
func rotate(dir datadir.Dir, services []string) error {
	for _, service := range services {
		logrus.Infof("Rotating certificates for %s", service)
		for _, leaf := range pki.LeafFiles()[service] {
			if err := pki.Remove(dir, leaf); err != nil {
				return err
			}
		}
	}
	logrus.Info("Successfully rotated certificates, please restart k3s server to make them take effect")
	return nil
}

type certificateReport struct {
	File         string    `json:"filename"`
	Subject      string    `json:"subject"`
	Usages       string    `json:"usages"`
	ExpiryTime   time.Time `json:"expiryTime"`
	ResidualTime string    `json:"residualTime"`
	Status       string    `json:"status"`
}

func check(dir datadir.Dir, services []string, format string) error {
	var reports []certificateReport
	for _, service := range services {
		for _, leaf := range pki.LeafFiles()[service] {
			for _, file := range pki.Leaf(dir, leaf+".crt") {
				found, err := inspect(file)
				if err != nil {
					return err
				}
				reports = append(reports, found...)
			}
		}
	}
	switch format {
	case "json":
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"certificates": reports})
	case "table":
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(table, "FILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS")
		for _, r := range reports {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.File, r.Subject, r.Usages,
				r.ExpiryTime.Format("Jan 02, 2006 15:04 MST"), r.ResidualTime, r.Status)
		}
		return table.Flush()
	case "text":
		for _, r := range reports {
			line := fmt.Sprintf("%s: certificate %s (%s) is %s, expires at %s", r.File, r.Subject, r.Usages, strings.ToLower(r.Status), r.ExpiryTime.Format(time.RFC3339))
			if r.Status == "OK" {
				logrus.Info(line)
			} else {
				logrus.Warn(line)
			}
		}
		return nil
	default:
		return fmt.Errorf("invalid output format %s", format)
	}
}

func inspect(file string) ([]certificateReport, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var reports []certificateReport
	for _, cert := range certs {
		left := time.Until(cert.NotAfter)
		r := certificateReport{
			File: filepath.Base(file), Subject: cert.Subject.CommonName, Usages: pki.UsageNames(cert), ExpiryTime: cert.NotAfter,
			ResidualTime: residual(left), Status: "OK",
		}
		switch {
		case left <= 0:
			r.Status = "EXPIRED"
		case left < warnBefore:
			r.Status = "WARNING"
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// residual is a time left as people read it: 12 days, 1 year, 10 years.
func residual(left time.Duration) string {
	n, unit := int(left.Round(24*time.Hour)/(24*time.Hour)), "day"
	if n >= 365 {
		n, unit = n/365, "year"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

func secretsEncrypt(args []string) error {
	name, args, err := subcommand("secrets-encrypt", args,
		"status", "enable", "disable", "prepare", "rotate", "reencrypt", "rotate-keys")
	if err != nil {
		return err
	}
	values, _, err := flags.Parse(certificateDefs, args)
	if err != nil {
		return err
	}
	if name != "status" {
		return fmt.Errorf("the k3lab stand-in knows `secrets-encrypt status` only, not %q", name)
	}
	return encryption.Status(os.Stdout, datadir.New(values.String("data-dir")))
}
