# Tests of the action plugins, without a machine: what would go over the connection
# is answered here. Started by plugins_test.go, which says where the plugins are.

import importlib.util
import json
import os
import stat
import tempfile
import unittest
from types import SimpleNamespace
from unittest import mock

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

SECRET = "K10-secret-token"
CONVERGER = {"from": "/cache/converger", "to": "/var/lib/k3lab/converger/c0ffee", "sha256": "c0ffee", "keep": 1}
BINARY = {"from": "/cache/k3s", "to": "/var/lib/k3lab/cache/beef", "sha256": "beef", "keep": 2}
NODE = {
    "node": "agent-1", "state": {"machine": "agent-1", "resources": [{"file": {"content": SECRET}}]},
    "k3s_unit": "k3s-agent.service", "k3s_running": True, "begun_by": "", "converger": CONVERGER, "supplies": [BINARY],
}
TAGS = ["os", "ssh", "firewall", "ha", "k3s", "hardening"]


def plugin(name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.environ["PLUGINS"], name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ActionModule


class Case(unittest.TestCase):
    maxDiff = None

    def action(self, name, args, check=False, diff=False):
        task = mock.MagicMock(args=args, async_val=0, action=name, check_mode=check, diff=diff)
        play = mock.MagicMock(check_mode=check, diff=diff, become=False, no_log=False)
        connection = mock.MagicMock()
        connection._shell = SimpleNamespace(tmpdir=None, join_path=os.path.join)
        made = plugin(name)(
            task=task, connection=connection, play_context=play, loader=mock.MagicMock(),
            templar=SimpleNamespace(template=lambda text: text), shared_loader_obj=mock.MagicMock(),
        )
        made._display = mock.MagicMock()
        return made

    def program(self, code, out="", err=""):
        """A k3lab that answers so, and writes down how it was called."""
        self.dir = tempfile.mkdtemp()
        path = os.path.join(self.dir, "k3lab")
        for name, text in (("out", out), ("err", err)):
            with open(os.path.join(self.dir, name), "w", encoding="utf-8") as f:
                f.write(text)
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\necho "$@" >{self.dir}/called\ncat {self.dir}/out\ncat {self.dir}/err >&2\nexit {code}\n')
        os.chmod(path, stat.S_IRWXU)
        return path

    def called(self):
        with open(os.path.join(self.dir, "called"), encoding="utf-8") as f:
            return f.read().strip()

    def fails(self, want, run, kind=AnsibleError):
        with self.assertRaises(kind) as failed:
            run()
        self.assertEqual(want, str(failed.exception))


class Desired(Case):
    def run_with(self, program, args=None):
        action = self.action("k3lab_desired", args or {})
        return action.run(task_vars={"k3lab_program": program, "ansible_play_hosts": ["agent-1", "server-1"], "playbook_dir": "/"})

    def test_asks_once_for_all_hosts_and_shows_nothing(self):
        document = json.dumps({"tags": TAGS, "nodes": [NODE]})
        result = self.run_with(self.program(0, '{"kind": "notice"}\n' + document + "\n"))
        self.assertEqual("desired --json --show-secrets agent-1 server-1", self.called())
        self.assertEqual({"agent-1": NODE}, result["nodes"])
        self.assertIs(True, result["_ansible_no_log"])
        self.assertIs(False, result["changed"])

    def test_says_why_k3lab_fails(self):
        program = self.program(3, err="k3lab: terraform/vars/nodes.yaml:3:5: no such role (try: server, agent)\n")
        self.fails("terraform/vars/nodes.yaml:3:5: no such role (try: server, agent)", lambda: self.run_with(program))

    def test_says_that_k3lab_failed_where_it_says_nothing(self):
        program = self.program(7)
        self.fails(f"{program} desired ended with 7", lambda: self.run_with(program))

    def test_k3lab_is_not_there(self):
        self.fails(
            "/nowhere/k3lab cannot be run (No such file or directory): put k3lab into your PATH, or set the variable k3lab_program",
            lambda: self.run_with("/nowhere/k3lab"),
        )


class Machine:
    """Answers what would go over the connection."""

    def __init__(self, action, answers, copy=None):
        self.answers, self.copy = list(answers), copy or {"rc": 0, "stdout": "", "stderr": ""}
        self.commands, self.given, self.transferred = [], [], []
        action._low_level_execute_command = self.execute
        action._transfer_file = lambda source, to: self.transferred.append(source)
        action._make_tmp_path = lambda: setattr(action._connection._shell, "tmpdir", "/tmp/x")
        action._remove_tmp_path = lambda path: None
        action._is_pipelining_enabled = lambda style: True

    def execute(self, command, in_data=None):
        self.commands.append(command)
        if in_data is None and "sha256sum" in command:
            return self.copy
        if in_data is not None:
            self.given.append(json.loads(in_data))
        answer = self.answers.pop(0)
        return answer if "rc" in answer else {"rc": 0, "stdout": json.dumps(answer), "stderr": ""}


class Converge(Case):
    def run_with(self, answers, node=None, args=None, check=False, diff=False, copy=None, **variables):
        action = self.action("k3lab", args or {"tags": ["os"]}, check, diff)
        self.machine = Machine(action, answers, copy)
        self.reset = action._connection.reset
        known = {"k3lab_desired": {"tags": TAGS, "nodes": {"agent-1": {**NODE, **(node or {})}}}, "inventory_hostname": "agent-1"}
        return action.run(task_vars={**known, **variables})

    def test_passes_the_answer_on_and_keeps_secrets_off_the_command_line(self):
        answer = {"changed": True, "changes": [{"resource": "file /a"}], "diff": [{"prepared": "update file /a: secret content\n"}]}
        result = self.run_with([answer], diff=True)
        for key, value in answer.items():
            self.assertEqual(value, result[key])
        self.assertEqual(("", True), (result["begun_by"], result["running"]))
        self.assertEqual([CONVERGER["to"] + " -"], self.machine.commands)
        self.assertNotIn(SECRET, json.dumps(result))
        self.assertEqual({"state": NODE["state"], "only": None, "tags": ["os"]}, self.machine.given[0]["request"])
        self.assertIs(True, self.machine.given[0]["_ansible_diff"])
        self.assertIs(False, self.machine.given[0]["_ansible_check_mode"])

    def test_check_mode_counts_on_the_tags_before(self):
        for run, skip, want in ((["all"], [], ["os", "ssh", "firewall", "ha"]), (["os", "k3s"], [], ["os"]), (["all"], ["ssh"], ["os", "firewall", "ha"])):
            self.run_with([{"changed": False}], args={"tags": "k3s"}, check=True, ansible_run_tags=run, ansible_skip_tags=skip)
            self.assertIs(True, self.machine.given[0]["_ansible_check_mode"])
            self.assertEqual(want, self.machine.given[0]["request"]["before"])

    def test_parts(self):
        for part, key in (("files", "hold"), ("unit", "only")):
            self.run_with([{"changed": False}], args={"tags": ["k3s"], "part": part})
            self.assertEqual(["unit k3s-agent.service"], self.machine.given[0]["request"][key])
        self.fails("part: 'half' is none of everything, files, unit", lambda: self.run_with([], args={"part": "half"}))

    def test_a_machine_without_the_converger_gets_it(self):
        self.run_with([{"rc": 127, "stdout": "", "stderr": "not found"}, {"changed": False}])
        self.assertEqual([CONVERGER["from"]], self.machine.transferred)

    def test_a_binary_that_is_missing_is_copied(self):
        self.run_with([{"changed": False, "missing": [BINARY["to"]]}, {"changed": True}])
        self.assertEqual([BINARY["from"]], self.machine.transferred)
        self.fails(
            f"{BINARY['to']} did not arrive on the machine",
            lambda: self.run_with([{"missing": [BINARY["to"]]}, {"missing": [BINARY["to"]]}]),
        )

    def test_a_transfer_that_fails(self):
        absent = [{"rc": 127, "stdout": "", "stderr": "not found"}]
        for said, want in (
            ("cat: write error: No space left on device\n", "cat: write error: No space left on device"),
            ("", "its SHA-256 differs; look at the machine's disk and memory"),
        ):
            self.fails(
                f"/cache/converger could not be copied to the machine: {want}",
                lambda said=said: self.run_with(list(absent), copy={"rc": 1, "stdout": "", "stderr": said}),
            )

    def test_what_k3lab_says_of_this_machine_is_passed_on(self):
        other = {"error": "the machine's processor is riscv64, the settings say amd64 (try: set arch: riscv64 in terraform/vars/nodes.yaml)"}
        self.fails(other["error"], lambda: self.run_with([], node=other))
        away = {"error": "no answer in time", "unreachable": True}
        self.fails("no answer in time", lambda: self.run_with([], node=away), AnsibleConnectionFailure)

    def test_a_converger_that_does_not_answer(self):
        for answer, want in (
            ({"rc": 137, "stdout": "", "stderr": ""}, "the converger ended with 137: "),
            ({"rc": 1, "stdout": "", "stderr": "sudo: a password is required\n"}, "the converger ended with 1: sudo: a password is required"),
            ({"rc": 126, "stdout": "", "stderr": "sh: 1: cannot execute: Exec format error"}, "the converger ended with 126: sh: 1: cannot execute: Exec format error"),
        ):
            self.fails(want, lambda answer=answer: self.run_with([answer]))

    def test_guarded_changes_are_confirmed_over_a_new_connection(self):
        asked = {"changed": True, "confirm": [{"id": "7", "seconds": 60}]}
        result = self.run_with([asked, {"rc": 0, "stdout": '{"outcome": "confirmed"}', "stderr": ""}])
        self.assertEqual(1, self.reset.call_count)
        self.assertEqual(CONVERGER["to"] + " confirm 7", self.machine.commands[-1])
        self.assertNotIn("confirm", result)
        for answer, said in (
            ({"rc": 0, "stdout": '{"outcome": "put back"}', "stderr": ""}, '{"outcome": "put back"}'),
            ({"rc": 255, "stdout": "", "stderr": "ssh: no route to host"}, "ssh: no route to host"),
        ):
            self.fails(
                "after the change no new connection could confirm it; the machine puts its old state back by itself within 60 s. "
                f"Correct the settings that concern SSH, the firewall and admin_networks: {said}",
                lambda answer=answer: self.run_with([asked, answer]),
            )


class Operation(Case):
    CHANGES = [
        {"object": "agent-1", "resource": "packages", "action": "update", "detail": "1 to a newer version", "before": "a 1\n", "after": "a 2\n"},
        {"object": "agent-1", "resource": "machine", "action": "restart", "deferred": "if asked for"},
    ]

    def run_with(self, program, check=False, diff=False, **args):
        args = {"command": ["os", "update"], "nodes": ["agent-1", "agent-2"], **args}
        self.acting = self.action("k3lab_operation", args, check, diff)
        return self.acting.run(task_vars={"k3lab_program": program, "playbook_dir": "/"})

    def output(self, changes):
        event = {"kind": "object", "object": "agent-1", "message": "draining"}
        return "".join(json.dumps(line) + "\n" for line in (event, {"kind": "progress", "message": "1 %"}, {"changes": changes}))

    def test_tells_what_is_done_and_what_was(self):
        result = self.run_with(self.program(0, self.output(self.CHANGES)), diff=True, options=["--at-once=2"])
        self.assertEqual("os update --json --yes --node=agent-1,agent-2 --at-once=2", self.called())
        self.acting._display.display.assert_called_once_with("agent-1: draining")
        self.assertIs(True, result["changed"])
        texts = ["update packages: 1 to a newer version", "restart machine: if asked for"]
        self.assertEqual({"agent-1": texts, "agent-2": []}, result["by_node"])
        header = "agent-1: " + texts[0]
        self.assertEqual([
            {"before": "a 1\n", "after": "a 2\n", "before_header": header, "after_header": header},
            {"prepared": "agent-1: " + texts[1] + "\n"},
        ], result["diff"])

    def test_only_plans_in_check_mode(self):
        result = self.run_with(self.program(2, self.output(self.CHANGES)), check=True, agreed="--name=home")
        self.assertEqual("os update --json --plan --node=agent-1,agent-2", self.called())
        self.assertIs(True, result["changed"])
        self.assertNotIn("diff", result)
        result = self.run_with(self.program(0, self.output([])), check=True)
        self.assertIs(False, result["changed"])

    def test_goes_on_as_it_is_told(self):
        self.run_with(self.program(0, self.output([])), agreed="--name=home")
        self.assertEqual("os update --json --name=home --node=agent-1,agent-2", self.called())

    def test_failures(self):
        for code, err, want in (
            (1, "k3lab: agent-1: not drained within 5m0s (try: x)\nagent-1 stays cordoned.\n", "agent-1: not drained within 5m0s (try: x)\nagent-1 stays cordoned."),
            (2, "k3lab: not meant to happen\n", "not meant to happen"),
        ):
            self.fails(want, lambda code=code, err=err: self.run_with(self.program(code, self.output([]), err)))
        program = self.program(9)
        self.fails(f"{program} os update --json --yes --node=agent-1,agent-2 ended with 9", lambda: self.run_with(program))
        self.fails(
            "/nowhere/k3lab cannot be run (No such file or directory): put k3lab into your PATH, or set the variable k3lab_program",
            lambda: self.run_with("/nowhere/k3lab"),
        )


class Conventions(unittest.TestCase):
    def test_what_is_used_of_ansible_is_there(self):
        for name in ("_low_level_execute_command", "_transfer_file", "_transfer_data", "_make_tmp_path", "_remove_tmp_path", "_is_pipelining_enabled"):
            self.assertTrue(callable(getattr(ActionBase, name, None)), name)


if __name__ == "__main__":
    unittest.main()
