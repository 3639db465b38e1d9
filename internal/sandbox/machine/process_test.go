//go:build linux

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	if err := p.Write(file); err != nil {
		t.Fatal(err)
	}
	read, err := ReadProcess(file)
	if err != nil || read != p {
		t.Errorf("read %v %v, wrote %v", read, err, p)
	}
	if !p.Alive() {
		t.Error("a running process is not alive")
	}
	if (Process{PID: p.PID, Started: p.Started + 1}).Alive() {
		t.Error("a process that took over the identifier is taken for the one before")
	}
	_ = cmd.Process.Kill()
	state, err := cmd.Process.Wait()
	if err != nil || p.Alive() {
		t.Errorf("ended as %v %v, and alive: %v", state, err, p.Alive())
	}
	if _, err := ReadProcess(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
