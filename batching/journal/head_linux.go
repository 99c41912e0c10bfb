package journal

import "golang.org/x/sys/unix"

// directFlag opens a file so that writes go past the page cache.
const directFlag = unix.O_DIRECT
