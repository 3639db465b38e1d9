# Brings a machine to its desired state, or a part of it. Supports check mode and
# diff. The machine needs no Python; become must be on.
#
#   - name: Converge the operating system
#     k3lab:
#       tags: [os]           # which resources; default: all
#       part: everything     # or `files`: all but K3s's unit, or `unit`: that alone
#
# What the machine should look like comes from k3lab (see k3lab_desired), and the
# program that looks at the machine and changes it, the converger, does too: it is
# the same one that `k3lab up` uses, and lies in the same place on the machine.
# Run by Ansible it takes the arguments of a module and answers like one.
#
# The result has `changes`, made or in check mode to be made; `held`, what
# `part: files` has left to do for K3s's unit; `begun_by`, the server that begins a
# new cluster; and `running`, whether K3s ran when k3lab was asked.

from __future__ import annotations

import json
import os
import shlex

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action import ActionBase

PARTS = ["everything", "files", "unit"]


class ActionModule(ActionBase):
    # Made only where something is transferred: it costs two more connections.
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        self._supports_check_mode = True
        self._supports_async = False
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        part = self._task.args.get("part", "everything")
        if part not in PARTS:
            raise AnsibleError(f"part: {part!r} is none of {', '.join(PARTS)}")
        answer = self._desired(task_vars)
        node = self._node(answer, task_vars["inventory_hostname"])
        try:
            answer = self._converge(node, self._request(node, part, answer["tags"], task_vars))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(answer)
        result.update(begun_by=node["begun_by"], running=node["k3s_running"])
        return result

    # What is wanted

    def _desired(self, task_vars):
        """What k3lab_desired has kept for this host, or else asks now."""
        known = task_vars.get("k3lab_desired") or {}
        name = task_vars["inventory_hostname"]
        return known if name in known.get("nodes", {}) else self._ask(task_vars, name)

    @staticmethod
    def _node(answer, name):
        node = answer["nodes"][name]
        if node.get("unreachable"):
            raise AnsibleConnectionFailure(node["error"])
        if node.get("error"):
            raise AnsibleError(node["error"])
        return node

    def _ask(self, task_vars, name):
        task = self._task.copy()
        task.args = {"nodes": [name]}
        ask = self._shared_loader_obj.action_loader.get(
            "k3lab_desired", task=task, connection=self._connection, play_context=self._play_context,
            loader=self._loader, templar=self._templar, shared_loader_obj=self._shared_loader_obj,
        )
        return ask.run(task_vars=task_vars)

    def _request(self, node, part, order, task_vars):
        tags = self._task.args.get("tags") or []
        if isinstance(tags, str):
            tags = [tags]
        unit = "unit " + node["k3s_unit"]
        request = {"state": node["state"], "only": None, "tags": tags}
        if part == "files":
            request["hold"] = [unit]
        elif part == "unit":
            request["only"] = [unit]
        if self._play_context.check_mode:
            request["before"] = self._earlier(tags, order, task_vars)
        return request

    @staticmethod
    def _earlier(tags, order, task_vars):
        """The tags that this run has gone through before this task. In check mode
        nothing on the machine tells what they would have changed."""
        run = task_vars.get("ansible_run_tags", ["all"])
        skip = task_vars.get("ansible_skip_tags", [])
        first = min((order.index(t) for t in tags if t in order), default=0)
        return [t for t in order[:first] if ("all" in run or t in run) and t not in skip]

    # Having it done

    def _converge(self, node, request):
        arguments = json.dumps({
            "request": request,
            "_ansible_check_mode": self._play_context.check_mode,
            "_ansible_diff": self._play_context.diff,
        })
        answer = self._run(node, arguments)
        missing = answer.pop("missing", None)
        if missing:
            for supply in node["supplies"]:
                if supply["to"] in missing:
                    self._copy(supply)
            answer = self._run(node, arguments)
            if answer.pop("missing", None):
                raise AnsibleError(f"{', '.join(missing)} did not arrive on the machine")
        for asked in answer.pop("confirm", []):
            self._confirm(node, asked)
        return answer

    def _confirm(self, node, asked):
        """Confirms through a new connection what may have locked this computer out.
        Without that the machine puts its old state back by itself."""
        try:
            self._connection.reset()
            done = self._low_level_execute_command(f"{shlex.quote(node['converger']['to'])} confirm {shlex.quote(asked['id'])}")
            said = done.get("stderr", "").strip() or done["stdout"].strip()
            if done["rc"] == 0 and json.loads(done["stdout"])["outcome"] == "confirmed":
                return
        except (AnsibleConnectionFailure, ValueError) as error:
            said = to_text(error)
        raise AnsibleError(
            "after the change no new connection could confirm it; the machine puts its old state back by itself within "
            f"{asked['seconds']} s. Correct the settings that concern SSH, the firewall and admin_networks: {said}"
        )

    def _run(self, node, arguments):
        """Runs the converger as a module; where the machine has none it is copied there."""
        converger = node["converger"]
        done = self._execute(converger["to"], arguments)
        if done["rc"] == 127:
            self._copy(converger)
            done = self._execute(converger["to"], arguments)
        try:
            return json.loads(done["stdout"])
        except ValueError:
            said = (done.get("stderr") or done["stdout"]).strip()
            raise AnsibleError(f"the converger ended with {done['rc']}: {said}") from None

    def _execute(self, converger, arguments):
        if self._is_pipelining_enabled("new"):
            return self._low_level_execute_command(shlex.quote(converger) + " -", in_data=arguments.encode())
        # Without pipelining they go into a file that only this user and root can read.
        path = self._transfer_data(self._connection._shell.join_path(self._tmp(), "arguments.json"), arguments)
        return self._low_level_execute_command(f"{shlex.quote(converger)} {shlex.quote(path)}")

    def _copy(self, supply):
        """Puts a file where machines keep it under its digest, whole or not at all."""
        arrived = self._connection._shell.join_path(self._tmp(), os.path.basename(supply["to"]))
        self._transfer_file(supply["from"], arrived)
        there, directory = shlex.quote(supply["to"]), shlex.quote(os.path.dirname(supply["to"]))
        script = (
            f"set -e; mkdir -p {directory}; part=$(mktemp {there}.XXXXXX); trap 'rm -f \"$part\"' EXIT; "
            f"cat {shlex.quote(arrived)} >\"$part\"; "
            f"echo {supply['sha256']}\"  $part\" | sha256sum --check --status; "
            f"chmod 0755 \"$part\"; sync \"$part\"; mv -f \"$part\" {there}; "
        )
        if supply["keep"]:
            script += f"cd {directory}; ls -1t | tail -n +{supply['keep'] + 1} | xargs -r rm -f --"
        done = self._low_level_execute_command(f"/bin/sh -c {shlex.quote(script)}")
        if done["rc"] != 0:
            said = done.get("stderr", "").strip() or "its SHA-256 differs; look at the machine's disk and memory"
            raise AnsibleError(f"{supply['from']} could not be copied to the machine: {to_text(said)}")

    def _tmp(self):
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        return self._connection._shell.tmpdir
