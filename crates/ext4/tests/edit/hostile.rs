//! Damaged images: changes of them end with an error or without one, but they end, and write nothing outside of the image.

use std::cell::RefCell;
use std::io;

use firebrick_ext4::edit::{EditError, Editor, Target};
use firebrick_ext4::read::ReadAt;
use firebrick_tree::Metadata;

use crate::image::Image;

/// An image in memory.
struct Memory(RefCell<Vec<u8>>);

impl ReadAt for Memory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.borrow().read_exact_at(buffer, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.0.borrow().size_bytes()
    }
}

impl Target for Memory {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = offset as usize;
        let mut image = self.0.borrow_mut();
        let place = image
            .get_mut(start..start + bytes.len())
            .expect("within the image");
        place.copy_from_slice(bytes);
        Ok(())
    }
}

fn change(image: Vec<u8>) -> Result<(), EditError> {
    let mut editor = Editor::open(Memory(RefCell::new(image)))?;
    let meta = Metadata::default();
    let results = [
        editor.write_file(b"/dir/new", &meta, 30_000, &mut io::repeat(b'n')),
        editor.remove(b"/dir/sub"),
        editor.remove(b"/large"),
        editor.make_directory(b"/made", &meta),
        editor.set_xattrs(b"/dir", &[(b"user.a"[..].into(), vec![b'v'; 300].into())].into()),
        editor.rename(b"/dir", b"/made/dir"),
    ];
    editor.finish()?;
    results.into_iter().collect()
}

#[test]
fn damage_is_an_error_and_nothing_worse() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("dir/sub/sub")).unwrap();
    std::fs::write(folder.path().join("large"), vec![b'l'; 300_000]).unwrap();
    for n in 0..40 {
        std::fs::write(folder.path().join(format!("dir/sub/{n}")), vec![b'x'; n * 30]).unwrap();
    }
    let mut failed = 0;
    // Without checksums, damage is not found before it is met.
    for arguments in ["-t ext4 -O ^metadata_csum,^has_journal,^resize_inode", "-t ext2"] {
        let image = Image::make(arguments, "2M", Some(folder.path()));
        let good = image.bytes();
        change(good.clone()).unwrap();
        // Bytes that are not zero, which are the ones that mean something, each made into three others.
        let used: Vec<usize> = (1024..good.len())
            .filter(|at| good[*at] != 0 && good[*at] != b'l')
            .collect();
        for at in used.iter().step_by(used.len() / 1500 + 1) {
            for value in [0, 0xff, good[*at] ^ 1] {
                let mut bad = good.clone();
                bad[*at] = value;
                failed += usize::from(change(bad).is_err());
            }
        }
    }
    assert!(failed > 100, "{failed}");
}
