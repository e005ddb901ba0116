"""Carries an artifact from one repository to another as clients of OCI registries do that know nothing of what it is.

usage: carry.py REGISTRY FROM TO TAG

Shares no code with firebrick: https://github.com/opencontainers/distribution-spec/blob/main/spec.md alone says how.
"""

import hashlib
import json
import sys
import urllib.request

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def ask(url, method="GET", body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return answer.headers, answer.read()


def main(registry, source, target, tag):
    base = f"http://{registry}/v2"
    _, manifest = ask(f"{base}/{source}/manifests/{tag}", Accept=OCI_MANIFEST)
    document = json.loads(manifest)
    assert document["artifactType"], document
    for blob in {one["digest"]: one for one in [document["config"], *document["layers"]]}.values():
        _, content = ask(f"{base}/{source}/blobs/{blob['digest']}")
        assert len(content) == blob["size"], blob
        assert "sha256:" + hashlib.sha256(content).hexdigest() == blob["digest"], blob
        headers, _ = ask(f"{base}/{target}/blobs/uploads/", "POST", b"")
        place = headers["Location"]
        place = place if place.startswith("http") else f"http://{registry}{place}"
        place += ("&" if "?" in place else "?") + "digest=" + blob["digest"]
        ask(place, "PUT", content, Content_Type="application/octet-stream")
    headers, _ = ask(f"{base}/{target}/manifests/{tag}", "PUT", manifest, Content_Type=document["mediaType"])
    print(headers["Docker-Content-Digest"])


main(*sys.argv[1:])
