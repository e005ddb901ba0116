//! A token server for a real registry: JSON web tokens, signed by `openssl`, as the registry's own rules want them.
//!
//! Protocol: <https://distribution.github.io/distribution/spec/auth/jwt/>. The registry trusts the certificate that
//! each token carries in its header, because that stands in its `rootcertbundle`.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::docker_registry::{PASSWORD, USER};
use crate::http::{Answer, Request, Server};
use crate::oracle;

/// What the registry calls itself.
pub const SERVICE: &str = "firebrick test registry";
/// Whom the registry believes.
pub const ISSUER: &str = "firebrick test";

/// Gives `joe` whatever he asks for, and anybody the right to pull from `public/…`. Ends with this value.
#[derive(Debug)]
pub struct Tokens {
    /// Where tokens are given; it also knows who asked.
    pub server: Server,
    folder: tempfile::TempDir,
}

impl Tokens {
    /// A token server with a key of its own.
    ///
    /// # Panics
    /// Where `openssl` fails.
    pub fn start() -> Tokens {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (key, certificate) = (at("key.pem"), at("cert.pem"));
        let mut args = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
        args.extend([
            "-subj",
            "/CN=firebrick test tokens",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        oracle::run_ok("openssl", args).unwrap();
        let root = folder.path().to_owned();
        let issued = AtomicUsize::new(0);
        let server =
            Server::start(move |request| answer(request, &root, issued.fetch_add(1, Ordering::Relaxed)));
        Tokens { server, folder }
    }

    /// The registry's `auth:` section.
    pub fn config(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {}\n",
            self.server.address,
            self.folder.path().join("cert.pem").display()
        )
    }
}

fn answer(request: &Request, folder: &Path, count: usize) -> Answer {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
        .collect();
    let joe = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let is_joe = match request.header("authorization") {
        None => false,
        Some(header) if header == joe => true,
        Some(_) => {
            return Answer::new(
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"who is that?"}]}"#,
            );
        }
    };
    if !pairs.contains(&("service".to_owned(), SERVICE.to_owned())) {
        return Answer::new(400, "another service");
    }
    let access: Vec<Value> = pairs
        .iter()
        .filter(|(name, _)| name == "scope")
        .filter_map(|(_, scope)| {
            let mut words = scope.splitn(3, ':');
            let (kind, name, actions) = (words.next()?, words.next()?, words.next()?);
            let allowed = |action: &&str| is_joe || name.starts_with("public/") && *action == "pull";
            let actions: Vec<&str> = actions.split(',').filter(allowed).collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "sub": if is_joe { USER } else { "" }, "aud": SERVICE, "jti": count.to_string(),
        "iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
    });
    let token = signed(&claims, folder, count);
    Answer::new(200, json!({"token": token, "expires_in": 300}).to_string())
}

fn signed(claims: &Value, folder: &Path, count: usize) -> String {
    let pem = fs::read_to_string(folder.join("cert.pem")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&header), encode(claims));
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, input, output) = (
        at("key.pem"),
        at(&format!("{count}.txt")),
        at(&format!("{count}.sig")),
    );
    fs::write(&input, &text).unwrap();
    oracle::run_ok(
        "openssl",
        ["dgst", "-sha256", "-sign", &key, "-out", &output, &input],
    )
    .unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(fs::read(output).unwrap()))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
