//! Lists: the tags of a repository, the repositories of a registry. They come in pages.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::ResponseExt as _;
use ureq::http::HeaderMap;

use crate::access::Access;
use crate::address::{join, next_page, shown};
use crate::answer::{message, small};
use crate::attempts::Failure;
use crate::client::Request;
use crate::error::RegistryError;
use crate::name::{RepositoryName, Tag};
use crate::repository::Repository;

/// The longest page, in bytes.
const PAGE_MAX: u64 = 8 << 20;
/// The most bytes of all its pages together.
const LIST_MAX: usize = 64 << 20;
/// The most pages of one list.
const PAGES_MAX: usize = 10_000;
/// The most entries of one list.
const ENTRIES_MAX: usize = 1_000_000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    next: Option<String>,
}

impl Page {
    pub(crate) fn parse<T: DeserializeOwned>(&self, url: &str) -> Result<T, RegistryError> {
        serde_json::from_slice(&self.bytes).map_err(|source| RegistryError::Json {
            url: shown(url),
            source: source.into(),
        })
    }
}

impl Repository {
    /// All tags, in the order of their bytes; none where there is no such repository.
    ///
    /// # Errors
    /// [`RegistryError::Endless`] beyond a million tags.
    pub fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        let url = self.url("tags/list");
        let mut all = Vec::new();
        let read = self.pages(Access::Pull, &url, &mut |page| {
            let tags: Tags = page.parse(&url)?;
            for tag in tags.tags.unwrap_or_default() {
                all.push(tag.parse::<Tag>().map_err(|_| RegistryError::Protocol {
                    url: shown(&url),
                    problem: "a tag in the list is none",
                })?);
            }
            Ok(all.len())
        });
        match read {
            Ok(()) | Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// The repositories of the registry whose names begin with `prefix`, in the order of their bytes.
    ///
    /// # Errors
    /// [`RegistryError::Unsupported`] if the registry does not tell, or not us.
    pub fn catalog(&self, prefix: &str) -> Result<Vec<RepositoryName>, RegistryError> {
        let url = format!("{}/v2/_catalog", self.origin());
        let registry = &self.name().registry;
        let mut all = Vec::new();
        let mut seen = 0usize;
        let read = self.pages(Access::Catalog, &url, &mut |page| {
            let catalog: Catalog = page.parse(&url)?;
            for repository in catalog.repositories.unwrap_or_default() {
                seen = seen.saturating_add(1);
                if repository.starts_with(prefix) {
                    // What the specification has no name for was not made by us.
                    all.extend(format!("{registry}/{repository}").parse::<RepositoryName>());
                }
            }
            Ok(seen)
        });
        let unsupported = |message| {
            Err(RegistryError::Unsupported {
                registry: registry.clone(),
                action: "list repositories",
                message,
            })
        };
        match read {
            Ok(()) => {}
            Err(RegistryError::NotFound { message, .. } | RegistryError::Unauthorized { message, .. }) => {
                return unsupported(message);
            }
            Err(RegistryError::Status {
                status: 400 | 405 | 501,
                message,
                ..
            }) => return unsupported(message),
            Err(error) => return Err(error),
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Reads a list page by page. `take` says how many entries there are by now.
    pub(crate) fn pages(
        &self,
        access: Access<'_>,
        first: &str,
        take: &mut dyn FnMut(&Page) -> Result<usize, RegistryError>,
    ) -> Result<(), RegistryError> {
        let endless = |what, limit| RegistryError::Endless {
            url: shown(first),
            what,
            limit,
        };
        let mut url = first.to_owned();
        let mut read = BTreeSet::new();
        let mut len = 0usize;
        while read.insert(url.clone()) {
            if read.len() > PAGES_MAX {
                return Err(endless("pages", PAGES_MAX));
            }
            let page = self.attempt("read", &url, || self.page(access, &url))?;
            len = len.saturating_add(page.bytes.len());
            if len > LIST_MAX {
                return Err(endless("bytes", LIST_MAX));
            }
            if take(&page)? > ENTRIES_MAX {
                return Err(endless("entries", ENTRIES_MAX));
            }
            match page.next {
                None => return Ok(()),
                Some(next) => url = next,
            }
        }
        Err(RegistryError::Protocol {
            url: shown(&url),
            problem: "the list leads in a circle",
        })
    }

    fn page(&self, access: Access<'_>, url: &str) -> Result<Page, Failure> {
        let request = Request::get(url, &[("accept", "*/*")]);
        let mut answer = self.exchange(access, &request)?;
        match answer.status().as_u16() {
            200 => {}
            404 => {
                return Err(Failure::Final(RegistryError::NotFound {
                    name: self.name().to_string(),
                    message: message(&mut answer),
                }));
            }
            _ => return Err(self.failure("", url, answer)),
        }
        let base = answer.get_uri().clone();
        let (headers, bytes) = small(url, answer, PAGE_MAX)?;
        let next = next_page(&headers).and_then(|next| join(&base, &next));
        Ok(Page { headers, bytes, next })
    }
}
