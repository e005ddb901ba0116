//! What firebrick itself puts into an image: the guest, what the OCI config says, and the time of both.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use firebrick_build::Merged;
use firebrick_customise::{
    Image, ImageInit, ImageJson, ImageLayer, Init, Profile, RunConfig, Service, Settings, Slimmed, customise,
    odd_mount_points, parse_rfc3339, to_tar,
};
use firebrick_source::{OciImage, Platform};
use firebrick_tree::Timestamp;
use firebrick_vmm::Arch;

use super::args::{Agent, InitChoice};
use super::{ImageArgs, agent};
use crate::error::CliError;
use crate::fit;

const BUSYBOX: &str = "the image's /sbin/init is busybox without OpenRC, which would start no agent: the guest takes its place; \
                       --init busybox keeps it";

/// The firebrick layer before it is known what lies below.
pub(crate) struct Contents {
    guest: Option<Vec<u8>>,
    /// Whether the guest is a file that somebody named.
    guest_is_given: bool,
    /// What the guest is for.
    platform: Platform,
    /// Whether somebody says that the image is for that platform: its config, or a flag.
    platform_is_stated: bool,
    image_json: ImageJson,
    init: Init,
    service: Service,
    words: Vec<String>,
    profile: Option<Profile>,
    runc: Option<Vec<u8>>,
    settings: Settings,
    slimmed: Mutex<Slimmed>,
    /// What is odd about the image, though it can be built: of its config first, then of its tree.
    odd: Mutex<Vec<String>>,
    /// Time of everything that no layer describes.
    pub(crate) created: Timestamp,
}

impl Contents {
    pub(crate) fn new(args: &ImageArgs, image: &OciImage) -> anyhow::Result<Contents> {
        Contents::with(args, args.settings.to_settings()?, image)
    }

    /// With these settings instead of those of the flags.
    pub(crate) fn with(args: &ImageArgs, settings: Settings, image: &OciImage) -> anyhow::Result<Contents> {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
        let mut image_json = image_json(image);
        let odd = image_json.run.take_odd();
        Ok(Contents {
            guest: guest(args, image)?,
            guest_is_given: matches!(args.agent, Some(Agent::File(_))),
            platform: image.platform.clone(),
            platform_is_stated: image.config_digest.is_some(),
            image_json,
            odd: Mutex::new(odd.iter().map(ToString::to_string).collect()),
            init: args.init.choice.into(),
            service: args.init.service(),
            words: args.init.guest_options.0.clone(),
            profile: args.init.profile.map(Into::into),
            runc: args
                .init
                .runc
                .as_deref()
                .map(|path| agent::read("runc", path, &image.platform))
                .transpose()?,
            settings,
            slimmed: Mutex::default(),
            created: created(epoch.as_deref(), image.config.created.as_deref())?,
        })
    }

    /// Notes that a flag says what the image is for, if it does.
    pub(crate) fn state_platform(&mut self, is_stated: bool) {
        self.platform_is_stated |= is_stated;
    }

    /// The guest for what the image's own programs are for.
    fn fitting_guest(
        &self,
        merged: &Merged<'_>,
    ) -> Result<Option<&[u8]>, Box<dyn std::error::Error + Send + Sync>> {
        let own = self.guest.as_deref();
        let Some(arch) = Arch::parse(&self.platform.architecture) else {
            return Ok(own); // there are no machines for it here
        };
        let Some((program, machine)) =
            fit::own_machine(merged)?.filter(|(_, machine)| !fit::runs(arch, *machine))
        else {
            return Ok(own);
        };
        let other = Arch::ALL.into_iter().find(|arch| arch.elf_machine() == machine);
        let guest = other.and_then(crate::guest::for_arch);
        match (other, guest) {
            (Some(other), Some(guest)) if !self.platform_is_stated && !self.guest_is_given => {
                self.odd().push(format!(
                    "{program} is for {other}: the image is made for linux/{0}, not {1}; it runs with --platform linux/{0}",
                    other.debian_name(),
                    self.platform
                ));
                Ok(own.map(|_| guest))
            }
            _ => Err(CliError::OtherPrograms {
                program: program.to_owned(),
                machine,
                platform: Box::new(self.platform.clone()),
            }
            .into()),
        }
    }

    /// What is odd about the image, in sentences.
    pub(crate) fn odd(&self) -> MutexGuard<'_, Vec<String>> {
        self.odd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was slimmed away, once the layer is made.
    pub(crate) fn slimmed(&self) -> MutexGuard<'_, Slimmed> {
        self.slimmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer, as a tar, over what the image's own layers merged to.
    pub(crate) fn layer(
        &self,
        merged: &Merged<'_>,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let image_json = ImageJson {
            layers: layers(merged),
            ..self.image_json.clone()
        };
        let request = firebrick_customise::Request {
            guest: self.fitting_guest(merged)?,
            image_json: &image_json,
            init: self.init,
            service: self.service.clone(),
            words: self.words.clone(),
            profile: self.profile,
            runc: self.runc.as_deref(),
        };
        let lower = merged.tree;
        let odd = odd_mount_points(lower);
        self.odd().extend(odd.iter().map(ToString::to_string));
        if self.init == Init::Auto && ImageInit::detect(lower) == ImageInit::Busybox {
            self.odd().push(BUSYBOX.to_owned());
        }
        let below = Image {
            tree: merged.tree,
            read: &|data| merged.read(data),
        };
        let customised = customise(&request, &self.settings, &below)?;
        *self.slimmed() = customised.slimmed;
        Ok(to_tar(&customised.entries, self.created.seconds))
    }
}

/// Which layers the image is made of, and where they lie.
fn layers(merged: &Merged<'_>) -> Vec<ImageLayer> {
    let below = merged.layers.iter().map(|layer| ImageLayer {
        diff_id: Some(layer.diff_id.to_string()),
        start: layer.region_start,
    });
    let own = ImageLayer {
        diff_id: None,
        start: merged.next_region,
    };
    below.chain([own]).collect()
}

/// `SOURCE_DATE_EPOCH`, else when the OCI image was created, else 1970.
fn created(epoch: Option<&str>, image: Option<&str>) -> anyhow::Result<Timestamp> {
    let seconds = match epoch.filter(|epoch| !epoch.is_empty()) {
        Some(epoch) => epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {epoch:?}, expected seconds since 1970"))?,
        None => image.and_then(parse_rfc3339).unwrap_or(0),
    };
    Ok(Timestamp {
        seconds,
        nanoseconds: 0,
    })
}

/// The guest: the one asked for, or of our own the one that runs on the image's processor.
fn guest(args: &ImageArgs, image: &OciImage) -> anyhow::Result<Option<Vec<u8>>> {
    match &args.agent {
        Some(Agent::None) if !matches!(args.init.choice, InitChoice::Auto | InitChoice::None) => {
            return Err(CliError::InitWithoutGuest.into());
        }
        Some(Agent::None) => return Ok(None),
        Some(Agent::File(path)) => return agent::read("agent", path, &image.platform).map(Some),
        None => {}
    }
    let own = Arch::parse(&image.platform.architecture)
        .filter(|_| image.platform.os == "linux")
        .and_then(crate::guest::for_arch);
    match own {
        Some(guest) => Ok(Some(guest.to_vec())),
        None => Err(CliError::OtherPlatform {
            image: Box::new(image.platform.clone()),
            guest: Box::new(Platform::host()),
        }
        .into()),
    }
}

/// What the guest must know of the OCI config.
fn image_json(image: &OciImage) -> ImageJson {
    let config = image.config.clone();
    ImageJson {
        run: RunConfig {
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
        },
        image_digest: image.manifest_digest.map(|digest| digest.to_string()),
        created: config.created,
        layers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_environments_then_the_images_then_1970() {
        let image = Some("2024-02-29T12:00:00Z");
        let seconds = |epoch, image| created(epoch, image).map(|time| time.seconds).ok();
        assert_eq!(seconds(Some("7"), image), Some(7));
        assert_eq!(seconds(Some(""), image), Some(1_709_208_000));
        assert_eq!(seconds(None, None), Some(0));
        assert_eq!(seconds(Some("yesterday"), image), None);
    }
}
