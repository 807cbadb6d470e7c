package redisbus

import "strings"

const slots = 16384

// slotOf is the hash slot of a channel, as the servers compute it.
func slotOf(topic string) int {
	if i := strings.IndexByte(topic, '{'); i >= 0 {
		if n := strings.IndexByte(topic[i+1:], '}'); n > 0 {
			topic = topic[i+1 : i+1+n]
		}
	}
	var crc uint16
	for i := range len(topic) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^topic[i]]
	}
	return int(crc) % slots
}

// crcTable is of CRC-16/XMODEM.
var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()
