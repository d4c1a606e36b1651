//! Who holds a UDP port: what an operator asks next when it is taken.

use std::fs;
use std::path::Path;

/// The program that holds a local UDP port, as far as Linux tells this user; elsewhere nobody.
pub(super) fn of_udp_port(port: u16) -> Option<String> {
    let inodes: Vec<_> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, port))
        .collect();
    let process = fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id = entry.file_name().into_string().ok()?.parse::<u32>().ok()?;
        holds(&entry.path(), &inodes).then_some(id)
    })?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(format!("{} (process {process})", name.trim_end().escape_debug()))
}

/// The sockets on a port, as links in `/proc/PID/fd` name them.
fn inodes(table: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let inode = words.nth(7)?;
        local.ends_with(&port).then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_kernel_is_read() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode ref pointer drops\n  \
                     17: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000  \
                     1000        0 4711 2 0000000000000000 0\n  \
                     18: 0100007F:0D97 00000000:0000 07 00000000:00000000 00:00000000 00000000  \
                     1000        0 4712 2 0000000000000000 0\n";
        assert_eq!(inodes(table, 3478), ["socket:[4711]"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_of_our_own_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp_port(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
    }
}
