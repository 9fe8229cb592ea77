# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: the auth methods AppRole, JWT, Kubernetes and TLS certificate, with their real checks.

https://developer.hashicorp.com/vault/api-docs/auth/approle, …/auth/jwt, …/auth/kubernetes, …/auth/cert. A login that is
refused answers 400 with a reason; Kubernetes, and it alone, refuses a service account with 403.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from shared import MAX_TTL, Refused, Unsupported, listed, only, seconds

#: what every method's roles take for the tokens they give (api-docs/auth/token, "token_" parameters)
_TOKEN = ("token_policies", "token_ttl", "token_max_ttl", "token_no_default_policy")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"


@dataclass
class Grant:
    """A login that worked: the token to issue."""

    policies: list[str]
    ttl: int
    max_ttl: int
    display_name: str
    metadata: dict[str, str]


@dataclass
class Role:
    settings: dict[str, Any] = field(default_factory=dict)
    role_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret_ids: dict[str, tuple[float | None, int]] = field(default_factory=dict)  # secret id -> (expires, uses left; 0 = any)

    def grant(self, display_name: str, metadata: dict[str, str]) -> Grant:
        policies = sorted({*listed(self.settings.get("token_policies")), *([] if self.settings.get("token_no_default_policy") else ["default"])})
        limit = seconds(self.settings.get("token_max_ttl"))
        ttl = seconds(self.settings.get("token_ttl")) or MAX_TTL
        return Grant(policies, min(ttl, limit) if limit else ttl, limit, display_name, metadata)

    def token_settings(self) -> dict[str, Any]:
        """As every method shows them when a role is read."""
        return {
            "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": seconds(self.settings.get("token_max_ttl")),
            "token_no_default_policy": bool(self.settings.get("token_no_default_policy")), "token_num_uses": 0, "token_period": 0,
            "token_policies": listed(self.settings.get("token_policies")), "token_ttl": seconds(self.settings.get("token_ttl")), "token_type": "default",
        }


class Method(ABC):
    """One mount of an auth method: roles, configuration, login."""

    kind = ""
    roles_path = "role"
    role_fields: tuple[str, ...] = ()
    config_fields: tuple[str, ...] = ()
    #: Whether the server looks first whether a role is there, and wants ``create`` for a new one.
    checks_existence = True

    def __init__(self) -> None:
        self.roles: dict[str, Role] = {}
        self.config: dict[str, Any] = {}

    def creates(self, path: str) -> bool:
        match = re.fullmatch(f"{self.roles_path}/({_NAME})", path)
        return bool(match and self.checks_existence and match.group(1) not in self.roles)

    def handle(self, method: str, path: str, body: dict[str, Any], certificate: bytes | None) -> dict[str, Any] | Grant | None:
        """``data`` of the answer, a Grant, or None: 204 for a write, 404 for a read."""
        if (method, path) == ("POST", "login"):
            return self.login(body, certificate)
        if (method, path) == ("POST", "config") and self.config_fields:
            only(body, *self.config_fields)
            self.configure(body)
            return None
        if method == "LIST" and path.rstrip("/") == self.roles_path:
            only(body)
            return {"keys": sorted(self.roles)} if self.roles else None
        match = re.fullmatch(f"{self.roles_path}/({_NAME})(/.+)?", path)
        if match is None:
            raise Unsupported(f"{method} {self.kind} {path}")
        name, rest = match.group(1), match.group(2) or ""
        if rest:
            return self.inside(method, name, rest, body)
        if method == "POST":
            only(body, *_TOKEN, *self.role_fields)
            role = self.roles.get(name, Role())
            self.check_role({**role.settings, **body})
            role.settings.update(body)
            self.roles[name] = role
            return None
        if method == "DELETE":
            only(body)
            self.roles.pop(name, None)
            return None
        if method == "GET":
            only(body)
            return {**self.shown(self.roles[name]), **self.roles[name].token_settings()} if name in self.roles else None
        raise Unsupported(f"{method} {self.kind} {path}")

    @abstractmethod
    def login(self, body: dict[str, Any], certificate: bytes | None) -> Grant:
        """A login with what is asked of the method; Refused when it does not count."""

    def configure(self, body: dict[str, Any]) -> None:
        self.config = dict(body)

    def check_role(self, settings: dict[str, Any]) -> None:
        return

    def shown(self, role: Role) -> dict[str, Any]:
        raise Unsupported(f"reading a role of {self.kind}")

    def inside(self, method: str, name: str, rest: str, body: dict[str, Any]) -> dict[str, Any] | None:
        raise Unsupported(f"{method} {self.kind} {name}{rest}")


class AppRole(Method):
    kind = "approle"
    role_fields = ("secret_id_ttl", "secret_id_num_uses", "bind_secret_id")

    def shown(self, role: Role) -> dict[str, Any]:
        return {
            "bind_secret_id": bool(role.settings.get("bind_secret_id", True)), "local_secret_ids": False, "secret_id_bound_cidrs": None,
            "secret_id_num_uses": int(role.settings.get("secret_id_num_uses", 0)), "secret_id_ttl": seconds(role.settings.get("secret_id_ttl")),
        }

    def inside(self, method: str, name: str, rest: str, body: dict[str, Any]) -> dict[str, Any] | None:
        role = self.roles.get(name)
        if (method, rest) == ("GET", "/role-id"):
            return {"role_id": role.role_id} if role else None
        if role is None:
            raise Unsupported(f"{method} approle of the missing role {name}")
        if (method, rest) == ("POST", "/secret-id"):
            only(body)
            made, ttl, uses = str(uuid.uuid4()), seconds(role.settings.get("secret_id_ttl")), int(role.settings.get("secret_id_num_uses", 0))
            role.secret_ids[made] = (time.time() + ttl if ttl else None, uses)
            return {"secret_id": made, "secret_id_accessor": str(uuid.uuid4()), "secret_id_ttl": ttl, "secret_id_num_uses": uses}
        if (method, rest) == ("POST", "/secret-id/destroy"):
            only(body, "secret_id")
            role.secret_ids.pop(str(body.get("secret_id")), None)
            return None
        raise Unsupported(f"{method} approle {name}{rest}")

    def login(self, body: dict[str, Any], certificate: bytes | None) -> Grant:
        only(body, "role_id", "secret_id")
        if not body.get("role_id"):
            raise Refused(400, "missing role_id")
        name, role = next(((name, each) for name, each in self.roles.items() if each.role_id == body["role_id"]), ("", None))
        if role is None:
            raise Refused(400, "invalid role or secret ID")
        if role.settings.get("bind_secret_id", True):
            secret = str(body.get("secret_id", ""))
            if not secret:
                raise Refused(400, "missing secret_id")
            expires, uses = role.secret_ids.get(secret, (0.0, 0))
            if expires is not None and time.time() >= expires:
                raise Refused(400, "invalid role or secret ID")
            if uses == 1:
                del role.secret_ids[secret]
            elif uses:
                role.secret_ids[secret] = (expires, uses - 1)
        return role.grant("approle", {"role_name": name})


class Jwt(Method):
    """Tokens that are verified with public keys of the configuration; OIDC and JWKS are not here."""

    kind = "jwt"
    role_fields = ("role_type", "user_claim", "bound_audiences", "bound_subject")
    config_fields = ("jwt_validation_pubkeys", "bound_issuer")

    def configure(self, body: dict[str, Any]) -> None:
        for each in listed(body.get("jwt_validation_pubkeys")):
            try:
                load_pem_public_key(each.encode())
            except ValueError:
                raise Refused(400, "error parsing public key") from None
        super().configure(body)

    def check_role(self, settings: dict[str, Any]) -> None:
        if settings.get("role_type") != "jwt":
            raise Unsupported("role_type other than jwt")
        if not settings.get("user_claim"):
            raise Refused(400, "a user claim must be defined on the role")
        if not listed(settings.get("bound_audiences")) and not settings.get("bound_subject"):
            raise Refused(400, "must have at least one bound constraint when creating/updating a role")

    def login(self, body: dict[str, Any], certificate: bytes | None) -> Grant:
        only(body, "role", "jwt")
        if not self.config:
            raise Refused(400, "could not load configuration")
        name = str(body.get("role", ""))
        if not name:
            raise Refused(400, "missing role")
        if name not in self.roles:
            raise Refused(400, f'role "{name}" could not be found')
        settings = self.roles[name].settings
        if not body.get("jwt"):
            raise Refused(400, "missing token")
        try:
            claims = _verified(str(body["jwt"]), listed(self.config.get("jwt_validation_pubkeys")))
            _check_times(claims)
            if self.config.get("bound_issuer") and claims.get("iss") != self.config["bound_issuer"]:
                raise ValueError("invalid issuer (iss) claim")
            if settings.get("bound_subject") and claims.get("sub") != settings["bound_subject"]:
                raise ValueError("invalid subject (sub) claim")
            wanted = listed(settings.get("bound_audiences"))
            if wanted and not set(wanted) & set(listed(claims.get("aud"))):
                raise ValueError("invalid audience (aud) claim: audience claim does not match any bound audience")
        except ValueError as error:
            raise Refused(400, f"error validating token: {error}") from error
        if claims.get("aud") and not wanted:
            raise Refused(400, "audience claim found in JWT but no audiences bound to the role")
        user = claims.get(str(settings["user_claim"]))
        if not isinstance(user, str):
            raise Refused(400, f'claim "{settings["user_claim"]}" not found in token')
        return self.roles[name].grant(f"jwt-{user}", {"role": name})


class Kubernetes(Method):
    """Asks the TokenReview API of ``kubernetes_host`` whether a service account's token is one, as the real method does."""

    kind = "kubernetes"
    role_fields = ("bound_service_account_names", "bound_service_account_namespaces", "audience")
    config_fields = ("kubernetes_host", "disable_local_ca_jwt")

    def configure(self, body: dict[str, Any]) -> None:
        if not body.get("kubernetes_host"):
            raise Refused(400, "no host provided")
        if not body.get("disable_local_ca_jwt"):
            raise Unsupported("a Kubernetes method inside of a pod")
        super().configure(body)

    def check_role(self, settings: dict[str, Any]) -> None:
        for name in self.role_fields[:2]:
            if not listed(settings.get(name)):
                raise Refused(400, f'"{name}" can not be empty')

    def login(self, body: dict[str, Any], certificate: bytes | None) -> Grant:
        only(body, "role", "jwt")
        for name in ("role", "jwt"):
            if not body.get(name):
                raise Refused(400, f"missing {name}")
        if body["role"] not in self.roles:
            raise Refused(400, f'invalid role name "{body["role"]}"')
        role = self.roles[body["role"]]
        try:
            claims = _claims(str(body["jwt"]))
            _check_times(claims)
            audience = str(role.settings.get("audience") or "")
            if audience and audience not in listed(claims.get("aud")):
                raise ValueError("invalid audience (aud) claim: audience claim does not match any bound audience")
            place = claims["kubernetes.io"]
            account = (str(place["namespace"]), str(place["serviceaccount"]["name"]), str(place["serviceaccount"]["uid"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(403, str(error)) from error
        for field_name, value, said in zip(self.role_fields, (account[1], account[0]), ("service account name not authorized", "namespace not authorized")):
            if listed(role.settings[field_name]) != ["*"] and value not in listed(role.settings[field_name]):
                raise Refused(403, said)
        if self._review(str(body["jwt"]), [audience] if audience else listed(claims.get("aud"))) != account:
            raise Refused(403, "permission denied")
        return role.grant(f"kubernetes-{account[0]}-{account[1]}", {"role": str(body["role"]), "service_account_name": account[1]})

    def _review(self, token: str, audiences: list[str]) -> tuple[str, str, str] | None:
        """POST /apis/authentication.k8s.io/v1/tokenreviews: (namespace, name, uid) of whom the token belongs to."""
        document = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token, "audiences": audiences}}
        request = urllib.request.Request(
            self.config["kubernetes_host"].rstrip("/") + "/apis/authentication.k8s.io/v1/tokenreviews", data=json.dumps(document).encode(), method="POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
                status = json.loads(response.read())["status"]
        except (urllib.error.HTTPError, OSError):
            return None
        parts = str(status.get("user", {}).get("username", "")).split(":")
        if not status.get("authenticated") or len(parts) != 4:
            return None
        return parts[2], parts[3], str(status["user"].get("uid"))


class Cert(Method):
    """The client certificate of the connection: a role names the certificate itself or the authority that signed it."""

    kind = "cert"
    roles_path = "certs"
    role_fields = ("certificate", "display_name", "allowed_common_names")
    checks_existence = False

    def check_role(self, settings: dict[str, Any]) -> None:
        try:
            x509.load_pem_x509_certificate(str(settings.get("certificate", "")).encode())
        except ValueError:
            raise Refused(400, "failed to parse certificate") from None

    def login(self, body: dict[str, Any], certificate: bytes | None) -> Grant:
        only(body, "name")
        if certificate is None:
            raise Refused(400, "client certificate must be supplied")
        client = x509.load_der_x509_certificate(certificate)
        common_name = str(client.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        fitting = [name for name in self.roles if body.get("name") in (None, "", name) and self._fits(client, self.roles[name])]
        if not fitting:
            raise Refused(400, "invalid certificate or no client certificate supplied")
        for name in fitting:
            names = listed(self.roles[name].settings.get("allowed_common_names"))
            if not names or common_name in names:
                return self.roles[name].grant(f"cert-{name}", {"cert_name": name, "common_name": common_name})
        raise Refused(400, "no chain matching all constraints could be found for this login certificate")

    @staticmethod
    def _fits(client: x509.Certificate, role: Role) -> bool:
        trusted = x509.load_pem_x509_certificate(str(role.settings["certificate"]).encode())
        if trusted == client:
            return True
        try:
            client.verify_directly_issued_by(trusted)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """(header, claims, signature, what is signed) of a compact JWT; ValueError."""
    pieces = token.split(".")
    if len(pieces) != 3:
        raise ValueError("malformed token: go-jose/go-jose: compact JWS format must have three parts")
    try:
        raw = [base64.urlsafe_b64decode(piece + "=" * (-len(piece) % 4)) for piece in pieces]
        header, claims = json.loads(raw[0]), json.loads(raw[1])
    except (binascii.Error, ValueError) as error:
        raise ValueError("malformed token") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("malformed token")
    return header, claims, raw[2], f"{pieces[0]}.{pieces[1]}".encode()


def _claims(token: str) -> dict[str, Any]:
    return _parts(token)[1]


def _verified(token: str, keys: list[str]) -> dict[str, Any]:
    header, claims, signature, signed = _parts(token)
    if header.get("alg") != "ES256":
        raise Unsupported(f"JWT algorithm {header.get('alg')}")
    for text in keys:
        public = load_pem_public_key(text.encode())
        if isinstance(public, ec.EllipticCurvePublicKey) and len(signature) == 64:
            pair = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            try:
                public.verify(pair, signed, ec.ECDSA(SHA256()))
            except InvalidSignature:
                continue
            return claims
    raise ValueError("error verifying token signature: no known key successfully validated the token signature")


def _check_times(claims: dict[str, Any]) -> None:
    now = time.time()
    if not any(name in claims for name in ("iat", "nbf", "exp")):
        raise ValueError("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")
    if "exp" in claims and now > float(claims["exp"]) + 60:
        raise ValueError("token is expired")
    if "nbf" in claims and now < float(claims["nbf"]) - 60:
        raise ValueError("token not yet valid")


#: type of an auth mount -> its class
METHODS: dict[str, type[Method]] = {each.kind: each for each in (AppRole, Jwt, Kubernetes, Cert)}
