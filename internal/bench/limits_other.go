//go:build !unix

package bench

func needFiles(int) error { return nil }

func outOfFiles(err error) error { return err }

func outOfPorts(err error) error { return err }
