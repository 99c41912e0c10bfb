//go:build !linux

package main

// isatty is false where we do not know how to ask: lines are then plain.
func isatty(uintptr) bool { return false }
