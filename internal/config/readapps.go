package config

import (
	"bytes"
	"os"

	"sockudo/internal/app"
)

// ReadApps returns the apps of a settings file with this name and content, or
// of a JSON list of apps. Other settings are read for mistakes only, and the
// environment only where the file has ${NAME}. The error is an *Error.
func ReadApps(name string, data []byte) ([]*app.App, *Report, error) {
	l := &loader{
		opts:   LoadOptions{Path: name, Env: os.LookupEnv},
		cfg:    Default(),
		report: &Report{File: name, sources: map[string]Source{}},
		faults: &faults{},
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if list, ok := bytes.CutPrefix(bytes.TrimSpace(data), []byte("[")); ok && bytes.HasPrefix(bytes.TrimSpace(list), []byte("{")) {
		// On the first line, so that the numbers of lines stay right.
		data = append(append([]byte(`{"app_manager":{"array":{"apps":`), data...), `}}}`...)
	}
	if err := l.text(name, data); err != nil {
		return nil, l.report, err
	}
	if err := l.faults.err(); err != nil {
		return nil, l.report, err
	}
	return l.cfg.AppManager.Array.Apps, l.report, nil
}

// AppSource tells where the app with an id was set.
func (r *Report) AppSource(id string) Source { return r.Source(appKey(id)) }
