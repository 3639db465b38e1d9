# Asks k3lab what machines should look like. Runs on this computer only.
#
#   - name: Ask k3lab what each machine should look like
#     k3lab_desired:
#       nodes: [server-1]    # default: all hosts of the play
#     register: k3lab_desired
#     run_once: true
#
# The answer holds the secrets of the lab, so it is never shown: the result is
# censored in every output, and kept in memory only for the tasks of `k3lab`.

from __future__ import annotations

import json
import os
import subprocess

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        nodes = self._task.args.get("nodes") or task_vars.get("ansible_play_hosts", [])
        answer = self._ask(task_vars, nodes)
        result.update(
            changed=False,
            tags=answer["tags"],
            nodes={n["node"]: n for n in answer["nodes"]},
            _ansible_no_log=True,
        )
        return result

    def _ask(self, task_vars, nodes):
        program = self._templar.template(task_vars.get("k3lab_program", "k3lab"))
        command = [program, "desired", "--json", "--show-secrets", *nodes]
        # k3lab looks for the workspace from here upwards.
        where = task_vars.get("playbook_dir") or os.getcwd()
        try:
            done = subprocess.run(command, cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except OSError as error:
            raise AnsibleError(
                f"{program} cannot be run ({error.strerror}): put k3lab into your PATH, or set the variable k3lab_program"
            ) from error
        if done.returncode != 0:
            raise AnsibleError(self._reason(done.stderr) or f"{program} desired ended with {done.returncode}")
        # Events come first, one a line; the document is the last.
        return json.loads(done.stdout.strip().splitlines()[-1])

    @staticmethod
    def _reason(text):
        return text.strip().removeprefix("k3lab: ")
