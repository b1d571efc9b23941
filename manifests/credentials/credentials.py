"""Writes the Secret with passwords and keys once, with random values; one that exists stays as it is."""

import base64
import json
import os
import pathlib
import secrets
import ssl
import urllib.error
import urllib.request

KEYS = (
    "api-key",
    "encryption-key",
    "qdrant-api-key",
    "mongodb-password",
    "redis-password",
    "s3-access-key",
    "s3-secret-key",
)


def main() -> None:
    account = pathlib.Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
    server = "https://" + os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = (account / "namespace").read_text().strip()
    values = {key: secrets.token_urlsafe(30).replace("-", "x").replace("_", "y") for key in KEYS}
    values["api-key"] = "mxp_" + values["api-key"]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "mixpeek-credentials",
            "labels": {"app.kubernetes.io/name": "mixpeek-operator", "app.kubernetes.io/part-of": "mixpeek"},
        },
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
    request = urllib.request.Request(
        f"{server}/api/v1/namespaces/{namespace}/secrets",
        data=json.dumps(secret).encode(),
        headers={
            "Authorization": "Bearer " + (account / "token").read_text().strip(),
            "Content-Type": "application/json",
        },
    )
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    try:
        urllib.request.urlopen(request, context=context, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise SystemExit(f"the Secret was not written: {error.code} {error.read().decode()}") from error
        print("the Secret mixpeek-credentials exists; nothing to do")
    else:
        print("wrote the Secret mixpeek-credentials")


main()
