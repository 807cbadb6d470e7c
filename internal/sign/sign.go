// Package sign makes and checks the signatures of the Pusher protocol: of
// channel subscriptions, of sign-ins, of API requests and of webhook bodies.
// All of them are lower-case hexadecimal HMAC-SHA256 with an app's secret as
// the key (protocol section 4).
package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// What can be wrong with an auth value.
var (
	ErrMissing   = errors.New("auth is missing")
	ErrMalformed = errors.New("auth is not key:signature")
	ErrKey       = errors.New("auth has another app's key")
	ErrSignature = errors.New("signature is wrong")
)

// HMAC returns the lower-case hexadecimal HMAC-SHA256 of a message.
func HMAC(secret, message string) string {
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac(sum[:0], secret, message))
}

// mac appends the HMAC of the joined parts.
func mac[T string | []byte](dst []byte, secret string, parts ...T) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(dst)
}

// Channel returns the auth value of a subscription. channelData is nil when
// there is none.
func Channel(key, secret, socketID, channel string, channelData *string) string {
	message := socketID + ":" + channel
	if channelData != nil {
		message += ":" + *channelData
	}
	return key + ":" + HMAC(secret, message)
}

// User returns the auth value of a sign-in.
func User(key, secret, socketID, userData string) string {
	return key + ":" + HMAC(secret, socketID+"::user::"+userData)
}

// Webhook returns the signature of a webhook's body.
func Webhook(secret string, body []byte) string {
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac(sum[:0], secret, body))
}

// VerifyChannel checks the auth value of a subscription against an app's key
// and secrets. Empty channel data may have been signed with its colon or
// without. It returns one of the errors of this package.
func VerifyChannel(auth, key string, secrets []string, socketID, channel string, channelData *string) error {
	digest, err := split(auth, key)
	if err != nil {
		return err
	}
	for _, secret := range secrets {
		switch {
		case channelData == nil:
			err = verify(digest, secret, socketID, ":", channel)
		case *channelData == "":
			if err = verify(digest, secret, socketID, ":", channel); err != nil {
				err = verify(digest, secret, socketID, ":", channel, ":")
			}
		default:
			err = verify(digest, secret, socketID, ":", channel, ":", *channelData)
		}
		if err == nil {
			return nil
		}
	}
	return ErrSignature
}

// VerifyUser checks the auth value of a sign-in.
func VerifyUser(auth, key string, secrets []string, socketID, userData string) error {
	if userData == "" && auth == "" {
		return ErrMissing
	}
	digest, err := split(auth, key)
	if err != nil {
		return err
	}
	for _, secret := range secrets {
		if verify(digest, secret, socketID, "::user::", userData) == nil {
			return nil
		}
	}
	return ErrSignature
}

// split returns the digest of an auth value that has the right key.
func split(auth, key string) (string, error) {
	if auth == "" {
		return "", ErrMissing
	}
	k, digest, ok := strings.Cut(auth, ":")
	switch {
	case !ok:
		return "", ErrMalformed
	case !hmac.Equal([]byte(k), []byte(key)):
		return "", ErrKey
	}
	return digest, nil
}

// verify compares a hexadecimal digest with that of the joined parts, in
// constant time. Upper case is not accepted: nobody sends it.
func verify[T string | []byte](digest, secret string, parts ...T) error {
	var sum [sha256.Size]byte
	var want [2 * sha256.Size]byte
	hex.Encode(want[:], mac(sum[:0], secret, parts...))
	if !hmac.Equal([]byte(digest), want[:]) {
		return ErrSignature
	}
	return nil
}
