//! Advice about recipes and what they name.

use firebrick_recipe::Problems;

use crate::commands::rootfs::build::files::CopyFault;
use crate::recipes::{RecipeFault, is_dockerfile};

/// What is wrong with the text: each problem says what was probably meant, so this is where all is told.
pub(super) fn of_problems(error: &Problems) -> Option<String> {
    let file = error.0.first()?.file.as_str();
    let hint = match is_dockerfile(file.as_ref()) {
        true => "what is read of a Dockerfile: firebrick recipe check --help",
        false => {
            "a recipe to compare it with: firebrick recipe show python, or devbox, which has the most keys"
        }
    };
    Some(hint.to_owned())
}

/// What is not put in.
pub(super) fn of_copy(error: &CopyFault) -> Option<String> {
    Some(match error {
        CopyFault::NotThere { folder, .. } | CopyFault::NoMatch { folder, .. } => {
            format!(
                "its paths start at the recipe's own folder: ls {}",
                folder.display()
            )
        }
        CopyFault::LeadsOut { source_path, folder } => format!(
            "put what it leads to in its place: cd {0} && cp -rL {1} COPY && mv -T COPY {1}",
            folder.display(),
            source_path.display()
        ),
        CopyFault::Excluded { source_path, folder } => format!(
            "take it back with a line at the end of {}: !{}",
            folder.join(".dockerignore").display(),
            source_path.display()
        ),
    })
}

/// What is wrong with a recipe as a whole, or asked for in one.
pub(super) fn of_fault(error: &RecipeFault) -> Vec<String> {
    match error {
        RecipeFault::NoSuchRecipe { known, .. } => vec![
            format!("there are: {}", known.join(", ")),
            "write one: firebrick recipe show python > mine.toml".to_owned(),
        ],
        RecipeFault::NotShipped { name, known } => {
            let mut hints = vec![format!("there are: {}", known.join(", "))];
            if std::path::Path::new(name).exists() {
                hints.push(format!("what that file makes: firebrick recipe check {name}"));
            }
            hints
        }
        RecipeFault::RecipesInACircle { .. } | RecipeFault::TooManyRecipes { .. } => {
            vec!["let one of them start from an image: from = \"debian:bookworm-slim\"".to_owned()]
        }
        RecipeFault::IsFolder {
            dockerfile: Some(dockerfile),
            ..
        } => vec![format!("name the Dockerfile in it: {}", dockerfile.display())],
        RecipeFault::IsFolder { path, .. } => vec![format!(
            "name a file, TOML or a Dockerfile; an image of what is in the folder: firebrick rootfs from-docker -n NAME -i dir:{}",
            path.display()
        )],
        RecipeFault::NotText { path } => vec![format!("see what it is: file {}", path.display())],
        RecipeFault::NoFrom { recipe } => vec![format!(
            "name an image in {recipe}: from = \"debian:bookworm-slim\""
        )],
        RecipeFault::BadRecipeName { .. } => vec!["give it another: -n NAME".to_owned()],
        RecipeFault::BadRecipeOption { .. } => {
            vec!["see what they are for: firebrick rootfs from-docker --help".to_owned()]
        }
        RecipeFault::NotOnBase { base, .. } => {
            vec![format!(
                "name them, or that there are none: packages = {{ {base} = [] }}"
            )]
        }
        RecipeFault::NoPackageManager { found, .. } => match found {
            Some(found) => vec![format!(
                "install them with a command: run = [{{ command = \"{found} …\", network = true }}]"
            )],
            None => vec![
                "start from an image that has apt-get or apk, such as debian:bookworm-slim or alpine"
                    .to_owned(),
            ],
        },
    }
}
