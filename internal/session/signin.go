package session

import (
	"errors"
	"fmt"
	"strings"

	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/sign"
	"sockudo/internal/ws"
)

func unauthorized(message string) error {
	return &protocol.Error{Code: protocol.CodeUnauthorized, Message: message}
}

// signin handles pusher:signin (protocol 2.11).
func (s *Session) signin(c *ws.Conn, data protocol.Value) error {
	if s.app.EnableSignin != nil && !*s.app.EnableSignin {
		return unauthorized("Sign-in is switched off for this app (enable_signin)")
	}
	req := protocol.DecodeSignin(data)
	key, secrets := s.credentials()
	if err := sign.VerifyUser(req.Auth, key, secrets, s.sock.ID.String(), req.UserData); err != nil {
		s.metrics().ConnectionError("authentication_failed")
		return unauthorized(signinText(err, &req))
	}
	u, err := protocol.DecodeUserData(req.UserData)
	if err != nil {
		return unauthorized("Invalid user data: " + err.Error())
	}
	err = s.gate.node.TrySignIn(s.app, &s.sock, u, req.UserData)
	if errors.Is(err, node.ErrWait) {
		c.Await(func() {
			s.report(s.signedIn(u, s.gate.node.SignIn(s.background(), s.app, &s.sock, u, req.UserData)))
		})
		return nil
	}
	return s.signedIn(u, err)
}

// signedIn notes what a sign-in means for the connection, and passes its error
// on.
func (s *Session) signedIn(u protocol.UserData, err error) error {
	if err != nil {
		return err
	}
	s.user = &protocol.Member{ID: u.ID, Info: u.Info}
	s.authorized()
	if s.watching() && len(u.Watchlist) > protocol.MaxWatchlist {
		return &protocol.Error{Code: protocol.CodeWatchlistLimit,
			Message: fmt.Sprintf("Watchlist has %d ids, the most is %d; watching only: %s",
				len(u.Watchlist), protocol.MaxWatchlist, strings.Join(u.Watchlist[:protocol.MaxWatchlist], ", "))}
	}
	return nil
}

func (s *Session) watching() bool {
	return s.app.EnableWatchlistEvents != nil && *s.app.EnableWatchlistEvents
}

func signinText(err error, req *protocol.Signin) string {
	key, _, _ := cutAuth(req.Auth)
	switch {
	case errors.Is(err, sign.ErrMissing):
		return "Auth info required to sign in"
	case errors.Is(err, sign.ErrMalformed):
		return "Invalid sign-in: auth must have the format key:signature"
	case errors.Is(err, sign.ErrKey):
		return "Invalid key in sign-in auth data: '" + clip(key) + "'"
	}
	return "Invalid signature: the sign-in must be signed over socket_id::user::user_data"
}

func cutAuth(auth string) (key, digest string, ok bool) { return strings.Cut(auth, ":") }
