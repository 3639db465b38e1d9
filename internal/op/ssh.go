package op

import (
	"os"
	"slices"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/remote"
)

// SSHCommand returns the ssh command line that opens a shell on the machine, or
// runs the command there, with the workspace's key and pinned host keys.
func SSHCommand(opts LabOptions, machine string, command []string) ([]string, error) {
	s, err := openSettings(opts)
	if err != nil {
		return nil, err
	}
	m := s.lab.Machine(machine)
	if m == nil {
		return nil, fault.New(fault.Invalid, machine, "k3lab status", "there is no machine of that name")
	}
	if err := s.restoreKey(); err != nil {
		// The way to a machine stays open to who has the key and not the secrets.
		if _, missing := os.Stat(s.keyFile()); missing != nil {
			return nil, err
		}
	}
	argv := []string{
		"ssh", "-i", s.keyFile(), "-o", "IdentitiesOnly=yes",
		"-o", "UserKnownHostsFile=" + s.dir.KnownHosts(), "-o", "StrictHostKeyChecking=accept-new",
		"-l", s.lab.Access.User, m.IP.String(),
	}
	if len(command) > 0 {
		argv = slices.Concat(argv, []string{"--"}, command)
	}
	return argv, nil
}

// ForgetHostKey drops the pinned host key of a machine that was rebuilt.
func ForgetHostKey(opts LabOptions, machine string) error {
	s, err := openSettings(opts)
	if err != nil {
		return err
	}
	m := s.lab.Machine(machine)
	if m == nil {
		return fault.New(fault.Invalid, machine, "k3lab status", "there is no machine of that name")
	}
	_, err = remote.Forget(s.dir.KnownHosts(), m.IP.String())
	return err
}
