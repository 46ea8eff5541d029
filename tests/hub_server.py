"""A local server that answers as the Hugging Face Hub does, as far as its library asks."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"


class Repositories:
    """What the server holds: for each repository its commits, newest last, and whether it is private.

    A data set's repository is called datasets/owner/name here.

    asked: (method, path) of every request. change: replaces the bytes of a file on its way, {path: bytes}.
    """

    def __init__(self):
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.change: dict[str, bytes] = {}

    def add(self, name, files):
        """A commit of files in a repository. Returns its identifier."""
        commits = self.commits.setdefault(name, [])
        commit = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        commits.append((commit, dict(files)))
        return commit

    def at(self, name, revision):
        """(commit, files) of a revision, or None."""
        commits = self.commits.get(name, [])
        if revision == "main":
            return commits[-1] if commits else ("0" * 40, {})
        return next((each for each in commits if each[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Repositories

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, code):
        self.reply(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    @property
    def logged_in(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def refused(self, name):
        """Whether this caller may not see a repository; then the refusal is sent."""
        held = self.repositories
        if name in held.gated and not self.logged_in:
            self.refuse(401, "GatedRepo")
            return True
        if name not in held.commits or (name in held.private and not self.logged_in):
            self.refuse(401 if not self.logged_in else 404, "RepoNotFound")
            return True
        return False

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.repositories.asked.append((self.command, path))
        path = path.replace("/api/models/", "/api/")
        name = r"((?:datasets/)?[^/]+/[^/]+)"
        if found := re.fullmatch(rf"/api/{name}(?:/revision/(.+))?", path):
            return self.model_info(found[1], found[2] or "main")
        if found := re.fullmatch(rf"/api/{name}/tree/([^/]+)", path):
            return self.tree(*found.groups())
        if found := re.fullmatch(rf"/{name}/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        self.refuse(404, "EntryNotFound")

    def model_info(self, name, revision):
        if self.refused(name):
            return
        if (at := self.repositories.at(name, revision)) is None:
            return self.refuse(404, "RevisionNotFound")
        commit, files = at
        siblings = [{"rfilename": file} for file in files]
        private = name in self.repositories.private
        self.reply(200, {"id": name, "sha": commit, "private": private, "tags": [], "siblings": siblings})

    def tree(self, name, revision):
        if self.refused(name):
            return
        if (at := self.repositories.at(name, revision)) is None:
            return self.refuse(404, "RevisionNotFound")
        files = at[1].items()
        oids = {path: hashlib.sha1(data).hexdigest() for path, data in files}
        self.reply(200, [{"type": "file", "path": p, "size": len(d), "oid": oids[p]} for p, d in files])

    def file(self, name, revision, path):
        if self.refused(name):
            return
        if (at := self.repositories.at(name, revision)) is None:
            return self.refuse(404, "RevisionNotFound")
        commit, files = at
        if path not in files:
            return self.refuse(404, "EntryNotFound")
        tag = hashlib.sha256(files[path]).hexdigest()
        data = self.repositories.change.get(path, files[path])
        self.reply(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

    def do_PUT(self):
        data = self.body()
        self.repositories.asked.append(("PUT", self.path))
        self.repositories.objects[hashlib.sha256(data).hexdigest()] = data
        self.reply(200)

    def do_POST(self):
        path, data = unquote(urlsplit(self.path).path), self.body()
        self.repositories.asked.append(("POST", path))
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if not self.logged_in:
            return self.refuse(401, "Unauthorized")
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        name = re.search(r"([^/]+/[^/.]+)(\.git/info/lfs|/preupload|/commit)", path)[1]
        if name.startswith("closed/"):
            return self.refuse(403, "Forbidden")
        if "/preupload/" in path:
            return self.reply(200, {"files": [self.mode(file) for file in json.loads(data)["files"]]})
        if path.endswith("/objects/batch"):
            return self.batch(json.loads(data))
        return self.commit(name, data)

    def create(self, about):
        name = f"{about['organization']}/{about['name']}" if about.get("organization") else about["name"]
        if name.startswith("closed/"):
            return self.refuse(403, "Forbidden")
        url = {"url": f"http://{self.headers['Host']}/{name}"}
        if name in self.repositories.commits:
            return self.reply(409, url)
        self.repositories.commits[name] = []
        if about.get("visibility") == "private" or about.get("private"):
            self.repositories.private.add(name)
        self.reply(200, url)

    def mode(self, file):
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def batch(self, wanted):
        host = f"http://{self.headers['Host']}"
        objects = [
            {**each, "actions": {"upload": {"href": f"{host}/upload/{each['oid']}"}}}
            for each in wanted["objects"]
        ]
        self.reply(200, {"transfer": "basic", "objects": objects})

    def commit(self, name, data):
        files = {}
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.repositories.objects[value["oid"]]
        commit = self.repositories.add(name, files)
        url = f"http://{self.headers['Host']}/{name}/commit/{commit}"
        self.reply(200, {"success": True, "commitOid": commit, "commitUrl": url})


@contextmanager
def hub_server():
    """A running server: (its address, its repositories)."""
    repositories = Repositories()
    handler = type("OwnHandler", (Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
