package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sockudo/internal/app"
	"sockudo/internal/app/foreign"
	"sockudo/internal/config"
)

const maxImport = 32 << 20

func newAppsImport(opts *serveOptions) *cobra.Command {
	im := importer{}
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Take apps over from Sockudo, Soketi or Laravel Reverb",
		Long: `Read apps of FILE, - for standard input, and put them into the store. What FILE is shows
in its name and content, or is said with --format:

  sockudo   settings in JSON or TOML with app_manager.array.apps, or a JSON list of apps
  soketi    JSON with appManager.array.apps, or that list alone
  env       NAME=value by line: REVERB_APP_… of Laravel Reverb, SOKETI_DEFAULT_APP_… of Soketi

--env reads those variables from the environment instead of a file.

Tells for each app what became of each setting. Nothing is written if one of the apps cannot
be taken over: one with a mistake, or one whose id is there with other settings, unless
--overwrite, or whose key is another app's. Apps that are there already as they are stay
untouched, so that an import can be run again.`,
		Example: `  sockudo apps import /var/www/.env --dry-run
  sockudo apps import soketi.json
  sockudo apps import old/config.json --overwrite
  sockudo apps import soketi.json --print > config.json   # a settings file, no store needed`,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringVar(&im.format, "format", "", "sockudo, soketi or env (default: by name and content)")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"sockudo", "soketi", "env"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&im.env, "env", false, "read variables of the environment in place of a file")
	cmd.Flags().BoolVar(&im.dryRun, "dry-run", false, "only tell what would be done")
	cmd.Flags().BoolVar(&im.overwrite, "overwrite", false, "replace apps that are there with other settings")
	cmd.Flags().BoolVar(&im.print, "print", false, "write a settings file with the apps to standard output in place of storing them")
	cmd.Flags().BoolVar(&im.asJSON, "json", false, "tell in JSON what is done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if im.env == (len(args) == 1) {
			return usageError{errors.New("give either FILE or --env")}
		}
		if err := exclusive(cmd, "print", "dry-run", "json"); err != nil {
			return err
		}
		apps, err := im.read(cmd, args)
		if err != nil {
			return err
		}
		return im.run(cmd, opts, apps)
	}
	return cmd
}

type importer struct {
	format                                string
	env, dryRun, overwrite, print, asJSON bool
}

// read returns the apps of the file or of the environment.
func (im *importer) read(cmd *cobra.Command, args []string) ([]foreign.Imported, error) {
	if im.env {
		vars := map[string]string{}
		for _, entry := range os.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			vars[name] = value
		}
		return variables("the environment", vars)
	}
	name := args[0]
	data, err := readInput(cmd, name, maxImport)
	if err != nil {
		return nil, err
	}
	if name == "-" {
		name = "standard input"
	}
	format := foreign.Format(im.format)
	if format == "" {
		if format, err = foreign.Detect(args[0], data); err != nil {
			return nil, usageError{fmt.Errorf("%s: its format %w; say it with --format", name, err)}
		}
	}
	switch format {
	case foreign.FormatSockudo:
		return settings(cmd.ErrOrStderr(), name, data)
	case foreign.FormatSoketi:
		apps, err := foreign.Soketi(data)
		return apps, at(name, err)
	case foreign.FormatEnv:
		vars, err := foreign.Dotenv(data)
		if err != nil {
			return nil, at(name, err)
		}
		return variables(name, vars)
	}
	return nil, usageError{fmt.Errorf("--format %q: expected sockudo, soketi or env", im.format)}
}

func at(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// variables reads the apps of Reverb and Soketi from their variables.
func variables(name string, vars map[string]string) ([]foreign.Imported, error) {
	apps, err := foreign.SoketiVariables(vars)
	if err != nil {
		return nil, at(name, err)
	}
	reverb, err := foreign.Reverb(vars)
	switch {
	case err == nil:
		apps = append(apps, reverb...)
	case !errors.Is(err, foreign.ErrNoApp) || len(apps) == 0:
		return nil, at(name, err)
	}
	return apps, nil
}

// settings reads the apps of a settings file. All that it has is known here.
func settings(errs io.Writer, name string, data []byte) ([]foreign.Imported, error) {
	apps, report, err := config.ReadApps(name, data)
	if err != nil {
		return nil, err
	}
	for _, n := range slices.Concat(report.Warnings, report.Infos) {
		if strings.HasPrefix(n.Key, "app_manager") {
			fmt.Fprintln(errs, "warning:", n)
		}
	}
	if len(apps) == 0 {
		return nil, at(name, errors.New("has no apps in app_manager.array.apps"))
	}
	var all []foreign.Imported
	for _, a := range apps {
		all = append(all, foreign.Imported{App: a})
	}
	return all, nil
}

// A step is what is done with one app.
type step struct {
	foreign.Imported
	was    *app.App // what an update replaces
	action string   // create, update, unchanged, conflict, invalid; after a failure: failed, skipped
	err    error
}

func (im *importer) run(cmd *cobra.Command, opts *serveOptions, apps []foreign.Imported) error {
	steps := check(apps)
	if im.print {
		im.tell(cmd.ErrOrStderr(), steps)
		if err := refused(steps); err != nil {
			return err
		}
		var all []*app.App
		for _, a := range apps {
			all = append(all, a.App)
		}
		text, err := settingsOf(all, false, false)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return opts.withApps(cmd, func(s *appStore) error {
		for i := range steps {
			if steps[i].err == nil {
				if err := im.plan(cmd.Context(), s, &steps[i]); err != nil {
					return err
				}
			}
		}
		err := refused(steps)
		var written []string
		if err == nil && !im.dryRun {
			written, err = im.write(cmd.Context(), s, steps)
		}
		told := im.report(cmd.OutOrStdout(), steps)
		s.tellNodes(cmd, written...)
		if told != nil {
			return told
		}
		return err
	})
}

// check finds what is wrong with the apps themselves.
func check(apps []foreign.Imported) []step {
	steps := make([]step, len(apps))
	ids, keys := map[string]bool{}, map[string]bool{}
	for i, im := range apps {
		a := im.App
		steps[i] = step{Imported: im, action: "create"}
		err := app.Validate(a)
		if err == nil && ids[a.ID] {
			err = fmt.Errorf("app %q: the id is there twice", a.ID)
		}
		if err == nil && keys[a.Key] {
			err = fmt.Errorf("app %q: its key is another app's too", a.ID)
		}
		if problems := app.Prepare(a, app.StandardDefaults()); err == nil && len(problems) > 0 {
			err = fmt.Errorf("app %q: allowed_origins: %w", a.ID, errors.Join(problems...))
		}
		if err != nil {
			steps[i].action, steps[i].err = "invalid", err
		}
		ids[a.ID], keys[a.Key] = true, true
	}
	return steps
}

// plan says what has to be done for an app. An error means that the store
// could not be asked.
func (im *importer) plan(ctx context.Context, s *appStore, st *step) error {
	a := st.App
	there, err := s.ByID(ctx, a.ID)
	switch {
	case err == nil && bytes.Equal(app.MarshalRecord(there), app.MarshalRecord(a)):
		st.action = "unchanged"
		return nil
	case err == nil && im.overwrite:
		st.action, st.was = "update", there
	case err == nil:
		st.action = "conflict"
		st.err = codeError{fmt.Errorf("app %q is there with other settings (%s): --overwrite replaces them", a.ID, strings.Join(different(there, a), ", ")), exitExists}
		return nil
	case !errors.Is(err, app.ErrNotFound):
		return coded(fmt.Errorf("app %q: %w", a.ID, err))
	}
	other, err := s.ByKey(ctx, a.Key)
	switch {
	case err == nil && other.ID != a.ID:
		st.action = "conflict"
		st.err = codeError{fmt.Errorf("app %q: its key is the one of app %q", a.ID, other.ID), exitExists}
	case err != nil && !errors.Is(err, app.ErrNotFound):
		return coded(fmt.Errorf("app %q: %w", a.ID, err))
	}
	return nil
}

// different names the members in which two apps differ.
func different(a, b *app.App) []string {
	var names []string
	for _, c := range app.Columns() {
		if c.Value(a) != c.Value(b) {
			names = append(names, c.Name)
		}
	}
	return names
}

// refused returns why nothing may be written.
func refused(steps []step) error {
	var errs []error
	code := exitFatal
	for _, st := range steps {
		if st.err != nil {
			errs = append(errs, st.err)
			if c, ok := errors.AsType[codeError](st.err); ok && len(errs) == 1 {
				code = c.code
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return codeError{fmt.Errorf("nothing was imported:\n%w", errors.Join(errs...)), code}
}

// write does what was planned and stops at the first failure. It returns the
// ids of the apps that are not what they were.
func (im *importer) write(ctx context.Context, s *appStore, steps []step) (written []string, err error) {
	unchanged := !slices.ContainsFunc(steps, func(st step) bool { return st.action != "unchanged" })
	if s.inMemory() && !unchanged {
		for i := range steps {
			steps[i].action = "skipped"
		}
		return nil, errors.New("nothing was imported: apps are kept in the settings (app_manager.driver is memory), which this command does not edit; --print writes a settings file with them")
	}
	for i := range steps {
		st := &steps[i]
		var err error
		switch st.action {
		case "create":
			err = s.Create(ctx, st.App)
		case "update":
			err = s.Update(ctx, st.was, st.App)
		}
		if err != nil {
			for j := i + 1; j < len(steps); j++ {
				steps[j].action = "skipped"
			}
			st.action, st.err = "failed", err
			return written, coded(fmt.Errorf("app %q: %w; those before it were imported, and the import can be run again", st.App.ID, err))
		}
		if st.action != "unchanged" {
			written = append(written, st.App.ID)
		}
	}
	return written, nil
}

// report tells what was done, or would be.
func (im *importer) report(w io.Writer, steps []step) error {
	if !im.asJSON {
		im.tell(w, steps)
		return nil
	}
	type mapping struct {
		From string `json:"from"`
		To   string `json:"to,omitempty"`
		Note string `json:"note,omitempty"`
	}
	type one struct {
		ID        string    `json:"id"`
		Key       string    `json:"key"`
		Action    string    `json:"action"`
		Error     string    `json:"error,omitempty"`
		Mapped    []mapping `json:"mapped"`
		NotMapped []mapping `json:"not_mapped"`
	}
	list := func(all []foreign.Mapping) []mapping {
		out := []mapping{}
		for _, m := range all {
			out = append(out, mapping(m))
		}
		return out
	}
	doc := struct {
		DryRun bool  `json:"dry_run"`
		Apps   []one `json:"apps"`
	}{DryRun: im.dryRun, Apps: []one{}}
	for _, st := range steps {
		o := one{ID: st.App.ID, Key: st.App.Key, Action: st.action, Mapped: list(st.Mapped), NotMapped: list(st.Left)}
		if st.err != nil {
			o.Error = st.err.Error()
		}
		doc.Apps = append(doc.Apps, o)
	}
	return writeJSON(w, doc)
}

func (im *importer) tell(w io.Writer, steps []step) {
	counts := map[string]int{}
	for _, st := range steps {
		counts[st.action]++
		fmt.Fprintf(w, "app %s (key %s): %s\n", printable(st.App.ID), printable(st.App.Key), st.action)
		for _, m := range st.Mapped {
			fmt.Fprintf(w, "  %s -> %s%s\n", printable(m.From), m.To, note(m.Note))
		}
		for _, m := range st.Left {
			fmt.Fprintf(w, "  NOT MAPPED %s%s\n", printable(m.From), note(m.Note))
		}
	}
	var parts []string
	for _, action := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[action], action))
	}
	text := fmt.Sprintf("%d apps: %s", len(steps), strings.Join(parts, ", "))
	if im.dryRun {
		text += " (dry run: nothing is written)"
	}
	fmt.Fprintln(w, text)
}

func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + printable(text) + ")"
}
