//! What is to be done in a repository, and the scopes of a token that allows it.
//!
//! A *scope* is a resource and what may be done to it: `repository:library/x:pull,push`
//! (<https://distribution.github.io/distribution/spec/auth/scope/>).
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;
use std::fmt;

/// What a request needs leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    Pull,
    Push,
    /// Push, what the other repository has.
    Mount(&'a str),
    Delete,
    Catalog,
}

impl Access<'_> {
    /// For messages: "REGISTRY does not let us … REPOSITORY".
    pub(crate) fn action(self) -> &'static str {
        match self {
            Access::Pull => "read",
            Access::Push | Access::Mount(_) => "write",
            Access::Delete => "remove from",
            Access::Catalog => "list what is beside",
        }
    }

    /// The scopes that allow it, that of the repository itself first.
    pub(crate) fn scopes(self, repository: &str) -> Vec<Scope> {
        let own = |actions: &[&str]| Scope::new(&format!("repository:{repository}"), actions);
        match self {
            Access::Pull => vec![own(&["pull"])],
            Access::Push => vec![own(&["pull", "push"])],
            Access::Mount(from) => vec![
                own(&["pull", "push"]),
                Scope::new(&format!("repository:{from}"), &["pull"]),
            ],
            Access::Delete => vec![own(&["delete"])],
            Access::Catalog => vec![Scope::new("registry:catalog", &["*"])],
        }
    }
}

/// A resource, and what is to be done to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// Its kind and name: `repository:library/x`.
    resource: String,
    actions: BTreeSet<String>,
}

impl Scope {
    fn new(resource: &str, actions: &[&str]) -> Scope {
        Scope {
            resource: resource.to_owned(),
            actions: actions.iter().map(|&action| action.to_owned()).collect(),
        }
    }

    fn parse(text: &str) -> Option<Scope> {
        let (resource, actions) = text.rsplit_once(':')?;
        Some(Scope::new(resource, &actions.split(',').collect::<Vec<_>>()))
    }

    /// The scopes to ask a token server for. What the registry's challenge names comes first, for it may know a repository by
    /// another name; some ask for less than the request needs, and none knows all that a mount reads from.
    pub(crate) fn wanted(challenge: &str, own: &[Scope]) -> Vec<String> {
        let mut wanted: Vec<Scope> = challenge.split(' ').filter_map(Scope::parse).collect();
        let is_named = !wanted.is_empty();
        for (index, scope) in own.iter().enumerate() {
            match wanted.iter_mut().find(|known| known.resource == scope.resource) {
                Some(known) => known.actions.extend(scope.actions.iter().cloned()),
                None if is_named && index == 0 => {}
                None => wanted.push(scope.clone()),
            }
        }
        wanted.iter().map(Scope::to_string).collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}:{}", self.resource, actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_server_is_asked_for() {
        for (access, challenge, expected) in [
            (Access::Pull, "", &["repository:a/b:pull"][..]),
            (Access::Pull, "repository:a/b:pull", &["repository:a/b:pull"]),
            // One that says too little, as GitHub's does.
            (Access::Push, "repository:a/b:pull", &["repository:a/b:pull,push"]),
            // One that knows the repository by another name.
            (Access::Pull, "repository:real:pull", &["repository:real:pull"]),
            (Access::Delete, "repository:a/b:*", &["repository:a/b:*,delete"]),
            (
                Access::Mount("c"),
                "repository:a/b:pull,push",
                &["repository:a/b:pull,push", "repository:c:pull"],
            ),
            (
                Access::Mount("c"),
                "repository:a/b:pull,push repository:c:pull",
                &["repository:a/b:pull,push", "repository:c:pull"],
            ),
            (Access::Catalog, "nonsense", &["registry:catalog:*"]),
        ] {
            let found = Scope::wanted(challenge, &access.scopes("a/b"));
            assert_eq!(found, expected, "{access:?} {challenge:?}");
        }
    }
}
