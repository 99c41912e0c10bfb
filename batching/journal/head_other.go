//go:build !linux

package journal

const directFlag = 0
