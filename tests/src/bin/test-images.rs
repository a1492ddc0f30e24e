//! Makes the images of the end-to-end tests from Debian packages, offline but for the machine's own apt sources.
//!
//! busybox is the static one of the build machine; debian, nginx, redis and postgres are trees made by mmdebstrap. Each is
//! written once into the user's cache and made anew only when its recipe changes.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::{
    cache,
    image::{Image, append},
};

/// A Debian tree with these packages and hooks, and the image's configuration.
struct Recipe {
    name: &'static str,
    tag: &'static str,
    packages: &'static str,
    hooks: &'static [&'static str],
    config: fn() -> Value,
}

/// Starts a database cluster on the first run, as the official image does, then the server.
const POSTGRES_START: &str = r#"cat > "$1/usr/local/bin/start-postgres" <<'END'
#!/bin/sh
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=${PGDATA:-/var/lib/postgresql/data}
mkdir -p "$data"
chown postgres:postgres "$data"
[ -s "$data/PG_VERSION" ] || setpriv --reuid=postgres --regid=postgres --init-groups "$bin/initdb" --no-sync -A trust -U postgres -D "$data"
exec setpriv --reuid=postgres --regid=postgres --init-groups "$bin/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
END
chmod 755 "$1/usr/local/bin/start-postgres""#;

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "debian",
        tag: "debian:bookworm",
        packages: "",
        hooks: &[],
        config: || json!({ "Cmd": ["bash"] }),
    },
    Recipe {
        name: "nginx",
        tag: "nginx:latest",
        packages: "nginx-light,curl",
        hooks: &[
            r#"ln -sf /dev/stdout "$1/var/log/nginx/access.log""#,
            r#"ln -sf /dev/stderr "$1/var/log/nginx/error.log""#,
        ],
        config: || json!({ "Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGQUIT" }),
    },
    Recipe {
        name: "redis",
        tag: "redis:latest",
        packages: "redis-server,redis-tools",
        hooks: &[],
        config: || {
            json!({ "Cmd": ["redis-server", "--protected-mode", "no", "--dir", "/data"], "Volumes": { "/data": {} },
                "ExposedPorts": { "6379/tcp": {} } })
        },
    },
    Recipe {
        name: "postgres",
        tag: "postgres:latest",
        packages: "postgresql,postgresql-client",
        hooks: &[POSTGRES_START],
        config: || {
            json!({ "Cmd": ["start-postgres"], "Volumes": { "/var/lib/postgresql/data": {} },
                "ExposedPorts": { "5432/tcp": {} } })
        },
    },
];

fn main() -> Result<()> {
    let out = cache::images();
    fs::create_dir_all(&out)?;
    let work = tempfile::tempdir_in(&out)?;
    make(&out, "busybox", include_str!("test-images.rs"), || {
        let tar = work.path().join("busybox.tar");
        busybox_tree(&tar)?;
        Ok(Image::new("busybox:latest", vec![tar], &json!({ "Cmd": ["sh"] })))
    })?;
    for recipe in RECIPES {
        let text = format!("{}{}{:?}{}", recipe.tag, recipe.packages, recipe.hooks, (recipe.config)());
        make(&out, recipe.name, &text, || {
            let tar = work.path().join(format!("{}.tar", recipe.name));
            debian_tree(&tar, recipe)?;
            Ok(Image::new(recipe.tag, vec![tar], &(recipe.config)()))
        })?;
    }
    Ok(())
}

/// Writes `NAME.docker.tar` and `NAME.oci.tar` unless they were made from the same recipe.
fn make(out: &Path, name: &str, recipe: &str, build: impl FnOnce() -> Result<Image>) -> Result<()> {
    let stamp = out.join(format!("{name}.recipe"));
    let hash: String = Sha256::digest(recipe).iter().map(|byte| format!("{byte:02x}")).collect();
    if fs::read_to_string(&stamp).is_ok_and(|seen| seen == hash) {
        return Ok(());
    }
    let started = Instant::now();
    println!("==> test image {name}");
    let image = build().with_context(|| format!("test image {name}"))?;
    for (kind, write) in [
        ("docker", Image::write_docker_archive as fn(&Image, &Path) -> Result<()>),
        ("oci", Image::write_oci_archive),
    ] {
        let temporary = out.join(format!("{name}.{kind}.tmp"));
        write(&image, &temporary)?;
        fs::rename(temporary, out.join(format!("{name}.{kind}.tar")))?;
    }
    fs::write(stamp, hash)?;
    println!("    {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// A small root around the static busybox of this machine.
fn busybox_tree(path: &Path) -> Result<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .context("busybox is missing: apt-get install busybox-static")?;
    let mut tar = tar::Builder::new(fs::File::create(path)?);
    let mut entry = |name: &str, kind: tar::EntryType, mode: u32, link: &str| -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        if link.is_empty() {
            tar.append_data(&mut header, name, std::io::empty())
        } else {
            tar.append_link(&mut header, name, link)
        }
    };
    for dir in [
        "bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin",
        "usr/sbin", "var",
    ] {
        entry(&format!("{dir}/"), tar::EntryType::Directory, 0o755, "")?;
    }
    for dir in ["tmp", "var/tmp"] {
        entry(&format!("{dir}/"), tar::EntryType::Directory, 0o1777, "")?;
    }
    let list = Command::new(&busybox).arg("--list").output()?;
    for applet in String::from_utf8(list.stdout)?.lines().filter(|applet| *applet != "busybox") {
        entry(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, "busybox")?;
    }
    let mut header = tar::Header::new_gnu();
    let data = fs::read(&busybox)?;
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, "bin/busybox", data.as_slice())?;
    append(
        &mut tar,
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nguest:x:405:100:guest:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    append(
        &mut tar,
        "etc/group",
        b"root:x:0:\nwww-data:x:33:\nusers:x:100:guest\nstaff:x:50:guest\nnogroup:x:65534:\n",
    )?;
    Ok(tar.into_inner()?.sync_all()?)
}

fn debian_tree(path: &Path, recipe: &Recipe) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
    for dir in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{dir}/*"));
    }
    if !recipe.packages.is_empty() {
        command.arg(format!("--include={}", recipe.packages));
    }
    for hook in recipe.hooks {
        command.arg(format!("--customize-hook={hook}"));
    }
    command
        .arg("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin")
        .arg("bookworm")
        .arg(path);
    // The machine's own sources, wherever they point.
    if let Some(sources) = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .iter()
        .find(|p| Path::new(p).is_file())
    {
        command.arg(sources);
    }
    let output = command.output().context("mmdebstrap is missing: apt-get install mmdebstrap")?;
    if !output.status.success() {
        bail!("mmdebstrap: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
