//! A scripted object store in the language that S3 and Google's XML interface share, with conditions that can be switched off.
//!
//! It checks what it is asked as far as a test's own `allow` looks, and keeps objects in memory. Pages of its listings have three keys.
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use firebrick_testkit::fault::{Answer, Request, Server};

/// What a store makes of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    Kept,
    Ignored,
    /// Answered with 501.
    Unknown,
}

#[derive(Default)]
struct State {
    /// Generation and content by key.
    objects: BTreeMap<String, (u64, Vec<u8>)>,
    /// Parts by number, by upload.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    generation: u64,
}

/// Serves the bucket `fbtest`; `allow` looks at every request, and its words are the answer to one that it refuses.
pub(crate) fn start(
    conditions: Conditions,
    allow: impl Fn(&Request) -> Result<(), String> + Send + Sync + 'static,
) -> Server {
    let state = Arc::new(Mutex::new(State::default()));
    Server::start(move |request| match allow(request) {
        Ok(()) => state.lock().unwrap().answer(request, conditions),
        Err(words) => Answer::new(
            403,
            format!("<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>"),
        ),
    })
    .unwrap()
}

impl State {
    fn answer(&mut self, request: &Request, conditions: Conditions) -> Answer {
        let Some(key) = decoded(request.path())
            .strip_prefix("/fbtest")
            .map(|key| key.trim_start_matches('/').to_owned())
        else {
            return Answer::new(404, "<Error><Code>NoSuchBucket</Code></Error>");
        };
        match (
            request.method.as_str(),
            request.query("uploadId"),
            request.query("partNumber"),
        ) {
            ("PUT", Some(upload), Some(part)) => self.part(upload, part, request),
            ("POST", Some(upload), None) => self.complete(&key, upload, request),
            ("POST", None, None) => {
                let id = format!("up{}", self.uploads.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                Answer::new(
                    200,
                    format!(
                        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            ("DELETE", Some(upload), None) => {
                self.uploads.remove(upload);
                Answer::new(204, "")
            }
            ("PUT", None, None) => self.put(&key, request, conditions),
            ("GET", None, None) if key.is_empty() => self.list(request),
            ("GET" | "HEAD", None, None) => self.get(&key, request),
            ("DELETE", None, None) => match self.objects.remove(&key) {
                Some(_) => Answer::new(204, ""),
                None => Answer::new(404, "<Error><Code>NoSuchKey</Code></Error>"),
            },
            _ => Answer::new(400, "<Error><Code>InvalidRequest</Code></Error>"),
        }
    }

    fn put(&mut self, key: &str, request: &Request, conditions: Conditions) -> Answer {
        let there = self.objects.get(key).map_or(0, |(generation, _)| *generation);
        let [none_match, is_match, generation] =
            ["if-none-match", "if-match", "x-goog-if-generation-match"].map(|name| request.header(name));
        let is_conditional = none_match.is_some() || is_match.is_some() || generation.is_some();
        if is_conditional && conditions == Conditions::Unknown {
            return Answer::new(501, "<Error><Code>NotImplemented</Code></Error>");
        }
        let holds = none_match.is_none_or(|_| there == 0)
            && is_match.is_none_or(|tag| tag == e_tag(there))
            && generation.is_none_or(|generation| generation == there.to_string());
        if !holds && conditions == Conditions::Kept {
            return Answer::new(412, "<Error><Code>PreconditionFailed</Code></Error>");
        }
        let generation = self.write(key, request.body.clone());
        Answer::new(200, "")
            .with("ETag", e_tag(generation))
            .with("x-goog-generation", generation.to_string())
    }

    fn write(&mut self, key: &str, bytes: Vec<u8>) -> u64 {
        self.generation += 1;
        self.objects.insert(key.to_owned(), (self.generation, bytes));
        self.generation
    }

    fn part(&mut self, upload: &str, part: &str, request: &Request) -> Answer {
        let Some(parts) = self.uploads.get_mut(upload) else {
            return Answer::new(404, "<Error><Code>NoSuchUpload</Code></Error>");
        };
        parts.insert(part.parse().unwrap(), request.body.clone());
        Answer::new(200, "").with("ETag", format!("\"part{part}\""))
    }

    fn complete(&mut self, key: &str, upload: &str, request: &Request) -> Answer {
        let Some(parts) = self.uploads.remove(upload) else {
            return Answer::new(404, "<Error><Code>NoSuchUpload</Code></Error>");
        };
        let wanted = String::from_utf8_lossy(&request.body).into_owned();
        if parts
            .keys()
            .any(|part| !wanted.contains(&format!("<PartNumber>{part}</PartNumber>")))
        {
            return Answer::new(400, "<Error><Code>InvalidPart</Code></Error>");
        }
        let generation = self.write(key, parts.into_values().flatten().collect());
        let result = format!(
            "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
            generation
        );
        Answer::new(200, result).with("x-goog-generation", generation.to_string())
    }

    fn get(&self, key: &str, request: &Request) -> Answer {
        let Some((generation, bytes)) = self.objects.get(key) else {
            return Answer::new(404, "<Error><Code>NoSuchKey</Code></Error>");
        };
        if request
            .header("if-match")
            .is_some_and(|tag| tag != e_tag(*generation))
        {
            return Answer::new(412, "");
        }
        let len = bytes.len();
        let range = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        let (answer, sent) = match range.and_then(|range| range.split_once('-')) {
            None => (Answer::new(200, bytes.clone()), len),
            Some((start, end)) => {
                let start: usize = start.parse().unwrap();
                let end = end.parse().map_or(len, |end: usize| len.min(end + 1));
                if start >= len {
                    return Answer::new(416, "<Error><Code>InvalidRange</Code></Error>");
                }
                let content = format!("bytes {start}-{}/{len}", end - 1);
                (
                    Answer::new(206, &bytes[start..end]).with("Content-Range", content),
                    end - start,
                )
            }
        };
        answer
            .with("Content-Length", sent.to_string())
            .with("ETag", e_tag(*generation))
            .with("x-goog-generation", generation.to_string())
            .with("Last-Modified", httpdate::fmt_http_date(SystemTime::now()))
    }

    fn list(&self, request: &Request) -> Answer {
        let prefix = decoded(request.query("prefix").unwrap_or(""));
        let after = ["continuation-token", "start-after"]
            .map(|name| request.query(name).map(decoded).unwrap_or_default());
        let mut keys: Vec<&String> = self
            .objects
            .keys()
            .filter(|key| key.starts_with(&prefix))
            .collect();
        keys.retain(|key| after.iter().all(|after| *key > after));
        let is_cut = keys.len() > 3;
        keys.truncate(3);
        let mut text = format!("<ListBucketResult><IsTruncated>{is_cut}</IsTruncated>");
        if let Some(last) = keys.last().filter(|_| is_cut) {
            text.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        }
        for key in keys {
            let (generation, bytes) = &self.objects[key];
            text.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>{generation}</ETag><Size>{}</Size></Contents>",
                now(),
                bytes.len()
            ));
        }
        Answer::new(200, text + "</ListBucketResult>")
    }
}

fn e_tag(generation: u64) -> String {
    format!("\"tag{generation}\"")
}

/// The time as listings have it.
fn now() -> String {
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let text = httpdate::fmt_http_date(SystemTime::now());
    let words: Vec<&str> = text.split(' ').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|month| *month == words[2]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}.000Z", words[3], words[1], words[4])
}

fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut plain = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        plain.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        plain.push_str(rest);
    }
    plain
}
