//! Which layer a file's bytes came with: firebrick notes in `image.json` where each layer's region starts.

use serde_json::Value;

use crate::image_file::ImageFile;
use crate::volume::Volume;

/// More than any registry takes.
const LAYERS_MAX: usize = 4096;

/// The layers of an image, lowest first; the last is what firebrick added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Where each one's region starts, in bytes, rising.
    starts: Vec<u64>,
    /// What each is called.
    pub(crate) names: Vec<String>,
}

impl Layers {
    /// Those that an image tells of. Only in ext4 do they have places.
    pub(crate) fn of(image: &ImageFile) -> anyhow::Result<Option<Layers>> {
        Ok(match &image.filesystem {
            Volume::Ext4(_) => image.image_json()?.as_ref().and_then(Layers::parse),
            Volume::Squashfs(_) => None,
        })
    }

    fn parse(image_json: &Value) -> Option<Layers> {
        let layers = image_json.get("Layers")?.as_array()?;
        if layers.is_empty() || layers.len() > LAYERS_MAX {
            return None;
        }
        let starts: Vec<u64> = layers
            .iter()
            .map(|layer| layer.get("Start")?.as_u64())
            .collect::<Option<_>>()?;
        let name = |(place, layer): (usize, &Value)| {
            let digest = layer.get("DiffId").and_then(Value::as_str);
            let hex = digest.and_then(|digest| digest.strip_prefix("sha256:"));
            match hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                Some(hex) => format!("layer {} ({})", place + 1, &hex[..12]),
                None => "firebrick and later changes".to_owned(),
            }
        };
        starts.is_sorted().then(|| Layers {
            names: layers.iter().enumerate().map(name).collect(),
            starts,
        })
    }

    /// The layer whose region has this place of the image.
    pub(crate) fn at(&self, offset: u64) -> Option<u16> {
        let behind = self.starts.partition_point(|start| *start <= offset);
        u16::try_from(behind.checked_sub(1)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Layers;

    #[test]
    fn a_place_is_of_the_region_before_it() {
        let hex = "ab".repeat(32);
        let list = json!({"Layers": [{"DiffId": format!("sha256:{hex}"), "Start": 100}, {"Start": 300}]});
        let layers = Layers::parse(&list).expect("a list");
        assert_eq!(
            layers.names,
            ["layer 1 (abababababab)", "firebrick and later changes"]
        );
        let places = [0, 99, 100, 299, 300, u64::MAX].map(|offset| layers.at(offset));
        assert_eq!(places, [None, None, Some(0), Some(0), Some(1), Some(1)]);
        for bad in [
            json!({}),
            json!({"Layers": []}),
            json!({"Layers": [{}]}),
            json!({"Layers": [{"Start": 2}, {"Start": 1}]}),
            json!({"Layers": [{"Start": -1}]}),
        ] {
            assert_eq!(Layers::parse(&bad), None, "{bad}");
        }
    }
}
