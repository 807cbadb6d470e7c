package config

import "reflect"

// A leaf is one setting that is no section.
type leaf struct {
	key   string
	field field
	value reflect.Value // settable
}

// leaves returns every setting of c by its full name.
func (c *Config) leaves() map[string]leaf { return leavesOf(reflect.ValueOf(c).Elem()) }

func leavesOf(v reflect.Value) map[string]leaf {
	all := map[string]leaf{}
	walk("", v, func(l leaf) { all[l.key] = l })
	return all
}

// walk visits the settings below the section v in order of their fields.
func walk(path string, v reflect.Value, visit func(leaf)) {
	for _, f := range fieldsOf(v.Type()) {
		key, member := join(path, f.key), v.FieldByIndex(f.index)
		if member.Kind() == reflect.Struct {
			walk(key, member, visit)
			continue
		}
		visit(leaf{key, f, member})
	}
}
