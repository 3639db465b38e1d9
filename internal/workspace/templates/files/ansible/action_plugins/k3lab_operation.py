# Runs an operation of k3lab for some hosts together. Runs on this computer only.
#
#   - name: Update the machines
#     k3lab_operation:
#       command: [os, update]
#       nodes: "{{ ansible_play_batch }}"
#       options: [--drain-timeout=10m]   # of the command; default: none
#       agreed: --yes                    # how the command is told to go on; this is the default
#     register: done
#     run_once: true
#
# What it does is told as it does it. In check mode it only plans. The result has
# `changes`, made or in check mode to be made, and `by_node`, the same as texts for
# each host; `changed` of the task says whether there are any.

from __future__ import annotations

import json
import subprocess
import tempfile

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

PLANNED_CHANGES = 2  # what k3lab exits with


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        self._supports_check_mode = True
        self._supports_async = False
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        nodes = self._task.args["nodes"]
        changes = self._operate(task_vars, nodes)
        by_node = {n: [] for n in nodes}
        for change in changes:
            by_node.setdefault(change["object"], []).append(self._text(change))
        result.update(changed=bool(changes), changes=changes, by_node=by_node)
        if self._play_context.diff:
            result["diff"] = [self._diff(c) for c in changes]
        return result

    def _operate(self, task_vars, nodes):
        program = self._templar.template(task_vars.get("k3lab_program", "k3lab"))
        agreed = self._task.args.get("agreed", "--yes")
        command = [
            program, *self._task.args["command"], "--json", "--plan" if self._play_context.check_mode else agreed,
            f"--node={','.join(nodes)}", *self._task.args.get("options", []),
        ]
        last = {}
        with tempfile.TemporaryFile(mode="w+") as errors:
            try:
                run = subprocess.Popen(
                    command, cwd=task_vars.get("playbook_dir"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
                )
            except OSError as error:
                raise AnsibleError(
                    f"{program} cannot be run ({error.strerror}): put k3lab into your PATH, or set the variable k3lab_program"
                ) from error
            with run:
                for line in run.stdout:
                    last = self._told(line)
            errors.seek(0)
            said = errors.read().strip().removeprefix("k3lab: ")
        if run.returncode not in (0, PLANNED_CHANGES if self._play_context.check_mode else 0):
            raise AnsibleError(said or f"{' '.join(command)} ended with {run.returncode}")
        return last["changes"]

    def _told(self, line):
        """Shows an event; the last line is none, but what was done."""
        event = json.loads(line)
        if event.get("kind") in ("object", "change", "notice", "warning"):
            self._display.display(": ".join(filter(None, [event.get("object"), event.get("message")])))
        return event

    @staticmethod
    def _text(change):
        words = [change["action"], change.get("resource", "")]
        text = " ".join(filter(None, words))
        why = change.get("deferred") or change.get("detail")
        return f"{text}: {why}" if why else text

    def _diff(self, change):
        header = f"{change['object']}: {self._text(change)}"
        if change.get("before") or change.get("after"):
            return {
                "before": change.get("before", ""), "after": change.get("after", ""),
                "before_header": header, "after_header": header,
            }
        return {"prepared": header + "\n"}
