package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// statDisk asks the file system of a directory.
func statDisk(dir string) (s diskState, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return s, fmt.Errorf("ask the file system of %s: %w", dir, err)
	}
	kinds := map[uint32]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs",
		unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
		unix.SMB_SUPER_MAGIC: "smb", unix.SMB2_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "smb", unix.FUSE_SUPER_MAGIC: "fuse",
		unix.MSDOS_SUPER_MAGIC: "vfat", unix.EXFAT_SUPER_MAGIC: "exfat", 0x2fc12fc1: "zfs",
	}
	return diskState{
		kind: kinds[uint32(st.Type)], readOnly: st.Flags&unix.ST_RDONLY != 0,
		free: int64(st.Bavail) * int64(st.Bsize), size: int64(st.Blocks) * int64(st.Bsize),
		freeInodes: st.Ffree, allInodes: st.Files,
	}, nil
}

// fileLimit returns how many files a process may have open; that of this one,
// which is the limit of what the same user starts, when pid is 0.
func fileLimit(pid int) (uint64, error) {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	b, err := os.ReadFile("/proc/" + who + "/limits")
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "Max open files"); ok && len(strings.Fields(rest)) > 0 {
			if n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64); err == nil {
				return n, nil
			}
			return 1 << 62, nil // unlimited
		}
	}
	return 0, fmt.Errorf("/proc/%s/limits has no line Max open files", who)
}
