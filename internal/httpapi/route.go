package httpapi

import "net/http"

// A routeID is an index of routes.
type routeID int

const (
	noRoute routeID = iota - 1
	eventsRoute
	batchRoute
	channelsRoute
	channelRoute
	usersRoute
	channelStatsRoute
	channelEventsRoute
	terminateRoute
	reconnectRoute
	upRoute
	upAppRoute
	liveRoute
	usageRoute
	statsRoute
	socketRoute
	routeCount
)

// A route is a path with its method; GET stands for HEAD too.
type route struct {
	method   string
	template string // as metrics name it
	serve    func(c *call)
	signed   bool // below /apps/{id}
	read     bool // counts as a read request of the app
}

var routes = [routeCount]route{
	eventsRoute:        {http.MethodPost, "/apps/:app_id/events", (*call).events, true, false},
	batchRoute:         {http.MethodPost, "/apps/:app_id/batch_events", (*call).batch, true, false},
	channelsRoute:      {http.MethodGet, "/apps/:app_id/channels", (*call).channels, true, true},
	channelRoute:       {http.MethodGet, "/apps/:app_id/channels/:channel", (*call).channel, true, true},
	usersRoute:         {http.MethodGet, "/apps/:app_id/channels/:channel/users", (*call).users, true, true},
	channelStatsRoute:  {http.MethodGet, "/apps/:app_id/channels/:channel/stats", (*call).oldStats, true, true},
	channelEventsRoute: {http.MethodPost, "/apps/:app_id/channels/:channel/events", (*call).oldEvents, true, false},
	terminateRoute:     {http.MethodPost, "/apps/:app_id/users/:user_id/terminate_connections", (*call).terminate, true, false},
	reconnectRoute:     {http.MethodPost, "/apps/:app_id/users/:user_id/force_reconnect", (*call).reconnect, true, false},
	upRoute:            {http.MethodGet, "/up", (*call).up, false, false},
	upAppRoute:         {http.MethodGet, "/up/:app_id", (*call).up, false, false},
	liveRoute:          {http.MethodGet, "/live", (*call).live, false, false},
	usageRoute:         {http.MethodGet, "/usage", (*call).usage, false, false},
	statsRoute:         {http.MethodGet, "/stats", (*call).stats, false, false},
	socketRoute:        {http.MethodGet, "/app/:key", (*call).socket, false, false},
}

// health reports whether the route is for probes, which nothing limits.
func (id routeID) health() bool { return id == upRoute || id == upAppRoute || id == liveRoute }

func (rt *route) allow() string {
	if rt.method == http.MethodGet {
		return "GET, HEAD, OPTIONS"
	}
	return rt.method + ", OPTIONS"
}

// find returns the route of a path, or noRoute, and sets the call's path.
func (a *API) find(c *call, s []string) routeID {
	switch {
	case len(s) == 1 && s[0] == "up":
		return upRoute
	case len(s) == 2 && s[0] == "up":
		c.path = s[1:]
		return upAppRoute
	case len(s) == 1 && s[0] == "live":
		return liveRoute
	case len(s) == 1 && s[0] == "usage" && a.opts.Usage:
		return usageRoute
	case len(s) == 1 && s[0] == "stats" && a.opts.Stats:
		return statsRoute
	case len(s) == 2 && s[0] == "app":
		return socketRoute
	case len(s) < 3 || s[0] != "apps":
		return noRoute
	}
	c.path = s[2:]
	switch p := c.path; {
	case len(p) == 1 && p[0] == "events":
		return eventsRoute
	case len(p) == 1 && p[0] == "batch_events":
		return batchRoute
	case p[0] == "channels":
		return findChannels(p)
	case p[0] == "users" && len(p) == 3 && p[2] == "terminate_connections":
		return terminateRoute
	case p[0] == "users" && len(p) == 3 && p[2] == "force_reconnect":
		return reconnectRoute
	}
	return noRoute
}

func findChannels(p []string) routeID {
	switch {
	case len(p) == 1:
		return channelsRoute
	case len(p) == 2:
		return channelRoute
	case len(p) == 3 && p[2] == "users":
		return usersRoute
	case len(p) == 3 && p[2] == "stats":
		return channelStatsRoute
	case len(p) == 3 && p[2] == "events":
		return channelEventsRoute
	}
	return noRoute
}
